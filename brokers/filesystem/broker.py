"""The filesystem copy repository broker: a repository in a directory."""

from brokers.filesystem.format0.repository import Repository
from brokers.filesystem.settings import FilesystemSettings
from brokers.repository.broker import RepositoryBroker
from brokers.repository.opened import CopyRepository


class FilesystemBroker(RepositoryBroker):
    """One repository in one directory."""

    description = "copy repository in a directory"

    def __init__(self, settings: FilesystemSettings) -> None:
        super().__init__(settings)
        self._directory = settings.repository_dir

    def open_repository(self) -> CopyRepository:
        """Raises RepositoryBusy while another process has a directory of format 0 open, UnknownFormat, OSError."""
        return Repository.open(self._directory, key_path=self._config.state_dir / "signing.key")
