"""The deterministic simulator: the real domain, journal, runner, handlers, sagas and projections, and the real engine
of the brokers' operations, on a simulated bus, clock and brokers, driven by a seed."""
