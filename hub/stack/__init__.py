"""The embedded stack: everything that `calque up` starts on one machine, and how it is kept running.

This package writes keys and configurations, picks ports, prepares servers and supervises processes.
It imports nothing of the rest of Calque: hub, agents and brokers are other programs to it, which it
knows by their command line, their settings file and their ready file.
"""
