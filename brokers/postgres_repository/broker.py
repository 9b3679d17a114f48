"""The Postgres copy repository broker: a repository of format 1 in a schema of a database."""

from __future__ import annotations

from brokers.postgres_repository.settings import PostgresRepositorySettings
from brokers.postgres_repository.store import PostgresStore
from brokers.repository.broker import RepositoryBroker
from brokers.repository.format1.repository import Repository
from brokers.repository.opened import CopyRepository


class PostgresRepositoryBroker(RepositoryBroker):
    """One repository in one schema."""

    description = "copy repository in a PostgreSQL database"

    waits_for_store = True

    def __init__(self, settings: PostgresRepositorySettings) -> None:
        super().__init__(settings)
        self._database = settings.database

    def open_repository(self) -> CopyRepository:
        """Raises CalqueError: temporary while the server is away, permanent when it refuses."""
        store = PostgresStore(self._database)
        try:
            store.check()
            return Repository.open(store, state=self._config.state_dir, options=self._config.options())
        except BaseException:
            store.close()
            raise
