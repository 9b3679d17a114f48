"""Each of our brokers as a process of its own on a real bus, as the kit meets them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from brokers.testkit.bench import Options
from brokers.testkit.report import Report, as_table
from brokers.testkit.run import conform
from bus.connection import Bus, BusSettings
from tests.integration.broker_process import BrokerProcess
from tests.integration.filesystem.certificates import Authority
from tests.servers import NatsServer

MakeBroker = Callable[..., BrokerProcess]
PATIENCE_SECONDS = 60.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    connected = await Bus.connect(BusSettings(servers=[nats_server.url], name="conformance"))
    yield connected
    await connected.close()


@pytest.fixture
def crb_settings(tmp_path: Path) -> Callable[[str], dict[str, object]]:
    authority = Authority(tmp_path)

    def settings(name: str) -> dict[str, object]:
        identity = authority.issue(name)
        tls = {"cert": str(identity.certificate), "key": str(identity.key), "ca": str(authority.path)}
        return {"repository_dir": str(tmp_path / name / "repository"), "tls": tls}

    return settings


async def conforms(
    process: BrokerProcess, bus: Bus, *, options: Options | None = None, patience_seconds: float = PATIENCE_SECONDS
) -> Report:
    """The report of a whole run, with a restart in the middle, that must have no failure."""

    async def restart() -> None:
        await process.kill()
        await process.start()

    report = await conform(
        bus,
        site="north",
        kind=process.kind,
        broker=process.name,
        options=options,
        restart=restart,
        patience_seconds=patience_seconds,
    )
    assert report.conforms, as_table(report)
    told = process.log.read_text()
    assert "Traceback" not in told, told
    return report
