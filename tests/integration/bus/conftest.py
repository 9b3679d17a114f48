"""A NATS server of these tests' own, so that they may kill it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus, BusSettings
from bus.service import ServiceInfo, discover
from tests.patience import patience


class Server:
    """A JetStream server on a fixed port, with its store kept over restarts; ``more`` is added to its configuration."""

    def __init__(self, home: Path, *, more: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"nats://127.0.0.1:{self.port}"
        self._config = home / "nats.conf"
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            "feature_flags { js_ack_fc_v2: false }\n"
            f'jetstream {{ store_dir: "{home}/store", max_file_store: 40G, strict: true }}\n{more}'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def _spawn(self) -> None:
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        with self._config.with_suffix(".log").open("ab") as out:
            self._process = subprocess.Popen([program, "-c", self._config], stdout=out, stderr=out)

    async def start(self) -> None:
        self._spawn()
        await until(self._listens, what="the server listens")

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    def kill(self) -> None:
        """kill -9"""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


async def until(condition: Callable[[], Awaitable[bool]], *, what: str, deadline_seconds: float = 20.0) -> None:
    """Poll ``condition``; fail with ``what`` after the deadline."""
    async with asyncio.timeout(patience(deadline_seconds)):
        while not await condition():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0.02)


async def found(bus: Bus, *, count: int, name: str | None = None) -> list[ServiceInfo]:
    """Services, once so many of them are found: one that is slow to answer is not there."""
    seen: list[ServiceInfo] = []

    async def complete() -> bool:
        seen[:] = await discover(bus, name=name, wait_seconds=0.3)
        return len(seen) >= count

    await until(complete, what=f"{count} services are found")
    return seen


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    server = Server(tmp_path_factory.mktemp("bus-nats"))
    await server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest_asyncio.fixture(loop_scope="session")
async def bus(server: Server) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(servers=[server.url], name="test"), deadline_seconds=60)
    try:
        yield bus
    finally:
        await bus.close()
