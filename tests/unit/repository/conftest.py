"""A repository in a directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.filesystem.format0.repository import Repository
from tests.unit.repository.copies import open_repository


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with open_repository(tmp_path) as opened:
        yield opened
