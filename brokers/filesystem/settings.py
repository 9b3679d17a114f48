"""What the filesystem broker is told at its start, beyond what every copy repository broker is told."""

from pathlib import Path

from brokers.repository.settings import RepositorySettings


class FilesystemSettings(RepositorySettings):
    """`repository_dir` is made at the first start."""

    name: str = "filesystem"
    repository_dir: Path
