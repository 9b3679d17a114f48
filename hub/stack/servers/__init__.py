"""The servers of a stack: how each is found, prepared, started as a part, and known to be ready."""
