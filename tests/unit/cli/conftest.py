"""A NATS server of this folder's own, with a hub in it that says what a test tells it to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings
from hub.client import Client, Context
from hub.stack.ports import LOOPBACK, Ports
from hub.stack.servers.nats import nats_part, plain_config
from hub.stack.supervisor import Places, Supervisor
from tests.unit.cli.scripted import ScriptedHub


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cli_nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    home = tmp_path_factory.mktemp("cli-nats")
    ports = Ports(home / "ports.json")
    port, monitor = ports.pick("client"), ports.pick("monitor")
    part = nats_part(
        "nats",
        config_file=home / "nats.conf",
        config=plain_config(port=port, monitor_port=monitor, store_dir=home / "store"),
        monitor_port=monitor,
        store_dir=home / "store",
    )
    supervisor = Supervisor([part], places=Places(logs=home / "logs", run=home / "run"))
    await supervisor.start()
    try:
        yield f"nats://{LOOPBACK}:{port}"
    finally:
        await supervisor.stop()


@pytest_asyncio.fixture
async def hub(cli_nats: str) -> AsyncIterator[ScriptedHub]:
    bus = await Bus.connect(BusSettings(servers=[cli_nats], name="scripted-hub"))
    scripted = ScriptedHub(bus)
    await scripted.start()
    try:
        yield scripted
    finally:
        await scripted.stop()
        await bus.close()


@pytest_asyncio.fixture
async def client(cli_nats: str) -> AsyncIterator[Client]:
    async with await Client.connect(
        Context(servers=(cli_nats,), principal="tester", jetstream_prefix="$JS.API")
    ) as connected:
        yield connected


@pytest.fixture
def cli_home(cli_nats: str, tmp_path: Path) -> Path:
    context = {"servers": [cli_nats], "principal": "tester", "jetstream_prefix": "$JS.API"}
    (tmp_path / "context.json").write_text(json.dumps(context))
    return tmp_path
