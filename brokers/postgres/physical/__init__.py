"""The plan ``dedicated``: a PostgreSQL server of its own for a data service, copied and restored as files."""
