"""The brokers of the guide run and keep the contract, and `python -m brokers.testkit` says so."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from brokers.testkit.report import as_table
from brokers.testkit.run import conform
from bus.connection import Bus
from tests.integration.broker_process import BrokerProcess
from tests.integration.conformance.conftest import conforms
from tests.servers import NatsServer

ROOT = Path(__file__).parents[3]
NO_CREDENTIALS = {"its bindings have no secrets", "its bindings have no credentials"}


def folders(bus: Bus, nats_server: NatsServer, directory: Path) -> BrokerProcess:
    return BrokerProcess(
        "examples.broker.folders",
        bus=bus,
        nats_url=nats_server.url,
        kind="dsb",
        name="folders",
        directory=directory,
        folders_dir=str(directory / "folders"),
    )


async def testkit(*arguments: str) -> tuple[int, str]:
    """Run the kit as its users do: the exit code and stdout."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brokers.testkit", *arguments), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_broker_of_the_guide_conforms(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    broker = folders(bus, nats_server, tmp_path)
    await broker.start()
    try:
        report = await conforms(broker, bus)
        skipped = [
            finding.id
            for finding in report.findings
            if finding.verdict == "skipped" and not finding.id.startswith("dsb.attach.")
        ]
        assert skipped == ["dsb.bind.secret", "dsb.unbind.works"]
        assert list((tmp_path / "folders").iterdir()) == []
    finally:
        await broker.stop()


@pytest.mark.full
async def test_the_kit_as_a_program(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    broker = folders(bus, nats_server, tmp_path)
    await broker.start()
    try:
        where = ("dsb", "folders", "--server", nats_server.url, "--site", "north", "--patience", "5")
        code, out = await testkit(*where, "--only", "dsb.bind.*", "-o", "json")
        found = json.loads(out)
        assert (code, found["conforms"]) == (0, True)
        assert {finding["verdict"] for finding in found["findings"]} == {"passed", "skipped"}
        code, out = await testkit(*where[:1], "nobody", *where[2:-1], "0.5", "--only", "any.info.complete")
        assert code == 1
        for word in ("FAILED", "wrong:", "sent:", "came:", "contract:", "does not conform"):
            assert word in out
    finally:
        await broker.stop()


async def test_calque_broker_conform_speaks_as_the_agent_of_the_site(
    nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    broker = folders(bus, nats_server, tmp_path)
    await broker.start()
    (tmp_path / "home" / "config").mkdir(parents=True)
    agent = {"bus": {"servers": [nats_server.url], "name": "north-agent"}, "site": "north", "of_agents_only": 1}
    (tmp_path / "home" / "config" / "north-agent.json").write_text(json.dumps(agent))
    command = ("-m", "hub.cli.main", "--home", str(tmp_path / "home"), "broker", "conform")

    async def calque(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    try:
        code, out = await calque("dsb", "folders", "--site", "north", "--only", "any.found.*", "-o", "json")
        assert (code, len(json.loads(out)["findings"])) == (0, 5)
        code, out = await calque("dsb", "folders", "--site", "south")
        assert (code, out) == (3, "")
    finally:
        await broker.stop()


async def test_a_broker_without_our_libraries_conforms(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    program = ROOT / "examples" / "broker" / "bare.py"
    ours = {"brokers", "bus", "hub", "schemas", "site_agent"}
    assert not ours & {line.split()[1].partition(".")[0] for line in imports(program)}
    running: list[asyncio.subprocess.Process] = []

    async def start() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), nats_server.url, "north", "bare", str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
        running.append(process)

    async def stop() -> None:
        process = running.pop()
        process.kill()
        await process.communicate()

    async def restart() -> None:
        await stop()
        await start()

    await start()
    try:
        report = await conform(bus, site="north", kind="dsb", broker="bare", restart=restart, patience_seconds=60)
        assert report.conforms, as_table(report)
        reasons = {finding.reason for finding in report.findings if finding.verdict == "skipped"}
        assert reasons <= {
            "the broker makes no copies",
            "the broker attaches nothing that was there before",
            *NO_CREDENTIALS,
        }
        assert report.count("passed") > 50
    finally:
        await stop()


def imports(program: Path) -> list[str]:
    return [line for line in program.read_text().splitlines() if line.startswith(("import ", "from "))]
