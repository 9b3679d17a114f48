"""The data service broker for volumes: a directory tree per data service."""
