"""The messaging broker: an account of a NATS server per data service."""
