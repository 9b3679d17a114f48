"""The command line. It speaks to the hub through :mod:`hub.client` and nothing else."""
