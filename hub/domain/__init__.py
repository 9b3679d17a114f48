"""What the hub decides, as pure functions: ``decide`` a command, ``evolve`` by an event. No I/O, no clock."""
