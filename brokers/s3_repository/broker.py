"""The S3 copy repository broker: a repository of format 1 in a bucket."""

from __future__ import annotations

from brokers.repository.broker import RepositoryBroker
from brokers.repository.format1.repository import Repository
from brokers.repository.opened import CopyRepository
from brokers.s3_repository.settings import S3RepositorySettings
from brokers.s3_repository.store import S3Store


class S3RepositoryBroker(RepositoryBroker):
    """One repository in one bucket, or below a prefix of it."""

    description = "copy repository in a bucket"

    waits_for_store = True

    def __init__(self, settings: S3RepositorySettings) -> None:
        super().__init__(settings)
        self._bucket = settings.bucket

    def open_repository(self) -> CopyRepository:
        """Raises CalqueError: temporary while the endpoint is away, permanent when it refuses."""
        store = S3Store(self._bucket)
        try:
            store.check()
            return Repository.open(store, state=self._config.state_dir, options=self._config.options())
        except BaseException:
            store.close()
            raise
