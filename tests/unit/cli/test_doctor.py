"""What the doctor finds, each with what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hub.cli import local_checks
from hub.cli.findings import Finding
from hub.cli.hub_checks import check_brokers, check_cleanup, check_clocks, check_sites, check_versions
from hub.cli.local_checks import check_disk, check_left_behind, check_parts, check_ports
from hub.client import Client
from hub.stack.files import write_json
from hub.stack.processes import identify
from hub.stack.running import announce, look
from schemas.envelope import timestamp, wrap
from schemas.ids import new_id
from schemas.queries import BrokerView, SiteView
from schemas.signals import Beat
from tests.unit.cli.scripted import ScriptedHub, operation

NORTH = SiteView(name="north", state="online", version="1.0.0", last_beat="2026-01-01T00:00:00.000000Z")


def problems(findings: list[Finding]) -> dict[str, Finding]:
    for finding in findings:
        assert (finding.state == "problem") == bool(finding.remedy), finding
    return {finding.subject: finding for finding in findings if finding.state == "problem"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose stack is kept, as it says, by the process of this test."""
    (tmp_path / "run" / "parts").mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    me = identify(os.getpid())
    assert me is not None
    (tmp_path / "run" / "lock").write_text(f"{me.pid} {me.started}\n")
    announce(tmp_path, phase="ready", sites=("north",), version="1.0.0")
    parts = {
        "hub": {"phase": "ready", "pid": os.getpid(), "restarts": 0, "cause": None},
        "north-s3": {"phase": "backoff", "pid": None, "restarts": 7, "cause": "exited with status 1"},
        "north-agent": {"phase": "ready", "pid": os.getpid(), "restarts": 5, "cause": "ended by signal 11"},
    }
    write_json(tmp_path / "run" / "status.json", {"supervisor": os.getpid(), "parts": parts})
    (tmp_path / "logs" / "north-s3.log").write_text("one\ntwo\naddress in use\n")
    return tmp_path


def test_a_part_that_is_down_comes_with_the_end_of_its_log(home: Path) -> None:
    found = problems(check_parts(look(home)))
    assert set(found) == {"north-s3", "north-agent"}
    assert "exited with status 1" in found["north-s3"].message
    assert found["north-s3"].details[-1] == "address in use"
    assert "5 times" in found["north-agent"].message
    assert "calque logs north-s3" in found["north-s3"].remedy


def test_a_lock_of_a_dead_process_is_found_and_one_that_lives_is_not(home: Path) -> None:
    assert problems(check_left_behind(look(home))) == {}
    (home / "run" / "lock").write_text(f"{os.getpid()} 1\n")  # the pid is used again by another process
    [(subject, finding)] = problems(check_left_behind(look(home))).items()
    assert subject.endswith("lock")
    assert "calque down" in finding.remedy
    me = identify(os.getpid())
    assert me is not None
    record = {"pid": me.pid, "started": me.started, "stop_signal": "SIGTERM", "stop_grace": 1.0}
    write_json(home / "run" / "parts" / "hub.json", record)
    assert "hub" in problems(check_left_behind(look(home)))


def test_a_port_that_another_program_holds_is_found(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        write_json(home / "ports.json", {"north-postgres": port})
        found = problems(check_ports(look(home)))
    assert f"port {port} is taken" in found["north-postgres"].message
    assert str(os.getpid()) in found["north-postgres"].message
    assert problems(check_ports(look(home))) == {}


def test_a_disk_that_is_nearly_full_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(home / "not" / "there")[0].check == "disk"
    full = shutil.disk_usage(home)._replace(free=local_checks.LEAST_FREE_BYTES - 1)
    monkeypatch.setattr("hub.cli.local_checks.shutil.disk_usage", lambda _: full)
    assert str(home) in problems(check_disk(home))


def test_sites_brokers_versions_and_clean_up() -> None:
    south = SiteView(name="south", state="stale", version="0.9.0")
    assert set(problems(check_sites([NORTH, south]))) == {"south"}
    brokers = [
        BrokerView(site="north", kind=kind, name=name, state=state)  # type: ignore[arg-type]
        for kind, name, state in (("dsb", "s3", "lost"), ("psb", "process", "registered"))
    ]
    found = problems(check_brokers(brokers, [NORTH]))
    assert set(found) == {"north/dsb-s3", "north"}
    assert "crb" in found["north"].message
    versions = problems(check_versions("1.0.0", hub="1.10.0", sites=[NORTH, south]))
    assert {name: "older" in finding.message for name, finding in versions.items()} == {"hub": False, "south": True}
    stuck = operation("o", "failed", cleanup="stuck")
    assert len(problems(check_cleanup([stuck, operation("p", "failed", cleanup="done")]))) == 1


async def test_a_clock_that_is_off_is_found_from_heartbeats(hub: ScriptedHub, client: Client) -> None:
    async def beat(sender: str, ahead: float) -> None:
        data = Beat(sender=sender, run="r", sequence=1, interval_seconds=2.0)
        time = timestamp(datetime.now(UTC) + timedelta(seconds=ahead))
        await hub.bus.publish(f"calque.beat.{sender}", wrap(data, id=new_id(), source=sender, time=time))

    class Beating:
        """The client, with heartbeats to hear as soon as it listens."""

        async def beats(self, *, senders: set[str], seconds: float) -> object:
            listening = asyncio.create_task(client.beats(senders=senders, seconds=seconds))
            while not listening.done():
                for sender, ahead in (("hub", 10.0), ("north", 10.2), ("south", -20.0)):
                    await beat(sender, ahead)
                await asyncio.sleep(0.02)
            return await listening

    found = problems(await check_clocks(Beating(), sites=["north", "south"]))  # type: ignore[arg-type]
    assert set(found) == {"hub", "south"}
    assert "30.0 s behind" in found["south"].message
    assert "10.0 s ahead" in found["hub"].message or "9.9 s ahead" in found["hub"].message
