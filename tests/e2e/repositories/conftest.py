"""One stack with two copy repositories at north, and an image in one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.stack import Stack, running_stack


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def twofold(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """``calque up`` with two filesystem repositories at north; the sample application runs there as ``ideas``."""
    place = tmp_path_factory.mktemp("twofold")
    two = ("--repository", "filesystem", "--repository", f"north=vault:{place / 'vault'}")
    async with running_stack(place / "home", options=two) as stack:
        await stack.must("template", "apply", "calque.yaml")
        await stack.must("deploy", "hackathon", "--site", "north", "--name", "ideas")
        yield stack


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def kept(twofold: Stack) -> Mapping[str, Any]:
    """The image ``kept`` of ``ideas``, in north's second repository."""
    saved = await twofold.must("save", "ideas", "--name", "kept", "--repository", "vault", "-o", "json")
    image: Mapping[str, Any] = saved.json
    return image
