"""The filesystem copy repository broker: a repository in a directory."""

from pathlib import Path

from brokers.filesystem.format0.repository import Repository as Format0
from brokers.filesystem.objects import DirectoryStore
from brokers.filesystem.settings import FilesystemSettings
from brokers.repository.broker import RepositoryBroker
from brokers.repository.format1.repository import Repository
from brokers.repository.opened import CopyRepository
from brokers.sdk.errors import permanent_error


class FilesystemBroker(RepositoryBroker):
    """One repository in one directory."""

    description = "copy repository in a directory"

    def __init__(self, settings: FilesystemSettings) -> None:
        super().__init__(settings)
        self._settings = settings

    def open_repository(self) -> CopyRepository:
        """One that is there stays in its format; a new one is of format 1. Raises RepositoryBusy while another process
        has a directory of format 0 open, UnknownFormat, WrongKey, OSError."""
        directory, state = self._settings.repository_dir, self._settings.state_dir
        if holds_format_0(directory):
            if self._settings.retention:
                raise permanent_error(
                    "settings",
                    f"{directory} is a repository of format 0, which can't lock copies",
                    field="retention",
                    remedy="leave retention out, or use another directory: a new repository is of format 1",
                )
            return Format0.open(directory, key_path=state / "signing.key")
        objects = DirectoryStore(directory)
        objects.sweep()
        return Repository.open(objects, state=state, options=self._settings.options())


def holds_format_0(directory: Path) -> bool:
    """Whether the directory was made as a repository of format 0."""
    return (directory / "chunks").is_dir() and (directory / "lock").exists()
