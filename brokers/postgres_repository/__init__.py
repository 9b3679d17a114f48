"""The Postgres copy repository broker: a repository in a schema of a PostgreSQL database, for the smallest sites."""
