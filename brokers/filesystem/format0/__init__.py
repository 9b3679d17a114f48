"""Repositories of format 0 (`docs/repository-format-0.md`): one directory, one process at a time. Kept readable and
writable for those that exist; new ones are of format 1."""
