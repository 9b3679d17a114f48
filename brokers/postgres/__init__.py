"""The data service broker for PostgreSQL: a database and an owner role per data service."""
