"""A NATS server for measuring: big enough, and alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bus.connection import Bus, BusSettings
from hub.stack.ports import LOOPBACK, Ports
from hub.stack.servers.nats import nats_part, plain_config
from hub.stack.supervisor import Places, Supervisor


@dataclass(frozen=True, kw_only=True)
class BenchServer:
    """A plain server with JetStream on a file store; no login. ``bus`` is connected to it, ``pid`` is its process."""

    url: str
    bus: Bus
    pid: int


@asynccontextmanager
async def bench_server() -> AsyncIterator[BenchServer]:
    """A server of one's own, with room for streams of 10 GiB and more; nothing of it is left afterwards."""
    with TemporaryDirectory(prefix="calque-bench-") as directory:
        home = Path(directory)
        ports = Ports(home / "ports.json")
        port, monitor = ports.pick("client"), ports.pick("monitor")
        store = home / "store"
        config = plain_config(port=port, monitor_port=monitor, store_dir=store)
        part = nats_part(
            "nats",
            config_file=home / "nats.conf",
            config=config.replace("max_file_store: 1G", "max_file_store: 40G"),
            monitor_port=monitor,
            store_dir=store,
        )
        supervisor = Supervisor([part], places=Places(logs=home / "logs", run=home / "run"))
        await supervisor.start()
        try:
            url = f"nats://{LOOPBACK}:{port}"
            bus = await Bus.connect(BusSettings(servers=[url], name="bench"))
            try:
                pid = supervisor.states["nats"].pid
                assert pid is not None  # it is ready
                yield BenchServer(url=url, bus=bus, pid=pid)
            finally:
                await bus.close()
        finally:
            await supervisor.stop()
