"""Benchmarks: speed and memory, measured on real parts. ``make bench`` runs them and writes ``docs/benchmarks.md``."""
