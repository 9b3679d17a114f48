"""A hub and the process of the webhooks on a NATS server of their own, with delays that a test can wait for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from bus.settings import BusSection
from hub.client.client import Client
from hub.client.context import Context
from hub.process import Hub
from hub.webhooks.process import webhooks
from hub.webhooks.settings import WebhooksSettings
from tests.integration.hub.conftest import Server, bus, nats, running_hub  # noqa: F401 - fixtures


class Process:
    """The webhooks' process, in this one; stopped and started again as a crash would."""

    def __init__(self, settings: WebhooksSettings) -> None:
        self.settings = settings
        self._stack: AsyncExitStack | None = None

    async def start(self, **changes: object) -> None:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(webhooks(self.settings.model_copy(update=changes)))

    async def stop(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


@pytest.fixture
def settings(nats: Server, tmp_path: Path) -> WebhooksSettings:  # noqa: F811
    key = tmp_path / "webhooks.key"
    key.write_bytes(os.urandom(32))
    return WebhooksSettings(
        bus=BusSection(servers=[nats.url], name="webhooks"),
        secrets_key_file=key,
        allow_private=True,
        first_delay_seconds=0.05,
        longest_delay_seconds=0.2,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def process(running_hub: Hub, settings: WebhooksSettings) -> AsyncIterator[Process]:  # noqa: F811
    made = Process(settings)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def client(nats: Server, running_hub: Hub) -> AsyncIterator[Client]:  # noqa: F811
    context = Context(servers=(nats.url,), nkey_seed_file=None, principal="alice", jetstream_prefix="$JS.API")
    async with await Client.connect(context) as made:
        yield made


__all__ = ["Process"]
