"""Two sites with repositories that answer over TLS."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def north(tmp_path: Path, authority: Authority) -> AsyncIterator[Site]:
    async with Site("north", directory=tmp_path, authority=authority) as site:
        yield site


@pytest.fixture
async def south(tmp_path: Path, authority: Authority) -> AsyncIterator[Site]:
    async with Site("south", directory=tmp_path, authority=authority) as site:
        yield site
