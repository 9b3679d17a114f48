"""The demo's own client code: loads the sample application, writes to it, and proves what a copy holds.

It reaches the application as any outsider would, over HTTP, Postgres and S3, and uses nothing of Calque.
"""
