"""The stack of one's own machine over a day: started in the background, looked at, broken, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hub.stack.processes import identify
from tests.e2e.stack import ROOT, Ended, until
from tests.unit.cli.test_commands import execute_here

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

SECONDS = 200.0


class Machine:
    """A home and a directory of settings of one's own, and the program run with them."""

    def __init__(self, place: Path) -> None:
        self.home = place / "home"
        self.environment = {
            **os.environ,
            "CALQUE_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(place / "config"),
            "PYTHONPATH": str(ROOT),
        }
        self.environment.pop("CALQUE_CONTEXT", None)

    async def run(self, *arguments: str) -> Ended:
        """Run a command line inside this process, which is quicker than one of its own."""
        done = await execute_here("--home", str(self.home), *arguments)
        return Ended(done.code, done.out, done.err)

    async def program(self, *arguments: str, **variables: str) -> Ended:
        """Run the program as a process of its own."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub.cli.main", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environment, **variables},
        )
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode is not None
        assert b"Traceback" not in err
        return Ended(process.returncode, out.decode(), err.decode())

    @property
    def keeper(self) -> int:
        """The process that runs the stack."""
        return int((self.home / "run" / "lock").read_text().split()[0])

    def pids(self) -> list[int]:
        """Of all parts that are recorded as running."""
        return [json.loads(file.read_text())["pid"] for file in (self.home / "run" / "parts").glob("*.json")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def machine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("daily"))
    try:
        started = await machine.program("up", "--detach", "--site", "north")
        assert started.code == 0, started
        assert "calque down" in started.stderr
        assert "north-agent is ready" in started.stderr
        yield machine
    finally:
        await machine.run("down")


async def test_when_up_returns_the_stack_is_ready_and_status_shows_its_parts(machine: Machine) -> None:
    status = (await machine.run("status", "-o", "json")).json
    assert [site["state"] for site in status["sites"]] == ["online"]
    assert status["stack"]["pid"] == machine.keeper
    assert status["stack"]["phase"] == "ready"
    assert {part["phase"] for part in status["stack"]["parts"].values()} == {"ready"}
    table = (await machine.run("status")).stdout
    assert "north-crb-filesystem" in table
    assert str(status["stack"]["parts"]["hub"]["pid"]) in table


async def test_up_again_is_no_second_stack_and_other_sites_are_a_conflict(machine: Machine) -> None:
    before = machine.keeper
    again = await machine.program("up", "-d")
    assert (again.code, machine.keeper) == (0, before)
    assert "already" in again.stderr
    other = await machine.program("up", "-d", "--site", "elsewhere")
    assert other.code == 5
    assert "calque down" in other.stderr
    foreground = await machine.program("up")
    assert foreground.code == 5
    assert str(before) in foreground.stderr


async def test_a_healthy_stack_has_no_findings_and_versions_agree(machine: Machine) -> None:
    found = await machine.run("doctor", "-o", "json")
    assert found.code == 0, found
    assert found.json["healthy"]
    assert {finding["state"] for finding in found.json["findings"]} == {"ok"}
    version = (await machine.run("version", "-o", "json")).json
    assert version["skew"] == {}
    assert version["sites"] == {"north": version["hub"]}


async def test_the_logs_of_parts_are_listed_shown_and_followed(machine: Machine) -> None:
    listed = (await machine.run("logs", "-o", "name")).stdout.split()
    assert {"hub", "north-agent", "up"} <= set(listed)
    assert "ready" in (await machine.run("logs", "hub")).stdout
    assert len((await machine.run("logs", "hub-nats", "-n", "3")).stdout.splitlines()) == 3
    assert json.loads((await machine.run("logs", "hub", "-n", "1", "-o", "json")).stdout)["part"] == "hub"
    unknown = await machine.run("logs", "hubb")
    assert unknown.code == 3
    assert "hub-nats" in unknown.stderr


async def test_completion_offers_live_names_and_is_silent_without_a_hub(machine: Machine, tmp_path: Path) -> None:
    asked = {"_CALQUE_COMPLETE": "bash_complete", "COMP_WORDS": "calque site describe no", "COMP_CWORD": "3"}
    offered = await machine.program(**asked)
    assert offered.stdout.split() == ["plain,north"]
    silent = await machine.program(**asked, CALQUE_HOME=str(tmp_path))
    assert (silent.stdout.strip(), silent.stderr) == ("", "")


@pytest.mark.full
async def test_a_part_that_was_killed_is_back_and_doctor_and_status_tell_of_it(machine: Machine) -> None:
    part = json.loads((machine.home / "run" / "parts" / "north-dsb-s3.json").read_text())["pid"]
    os.kill(part, signal.SIGKILL)

    async def again() -> bool:
        state = (await machine.run("status", "-o", "json")).json["stack"]["parts"]["north-dsb-s3"]
        return bool(state["restarts"] == 1 and state["phase"] == "ready")

    await until(again, seconds=SECONDS, what="the broker is started again")
    assert "signal 9" in (await machine.run("status")).stdout


@pytest.mark.full
async def test_what_a_killed_stack_left_is_found_and_stopped(machine: Machine) -> None:
    pids, keeper = machine.pids(), machine.keeper
    assert pids
    os.kill(keeper, signal.SIGKILL)

    async def dead() -> bool:
        return identify(keeper) is None

    await until(dead, seconds=10, what="the process that ran the stack is gone")
    found = await machine.run("doctor", "-o", "json")
    assert found.code == 1
    subjects = {each["subject"] for each in found.json["findings"] if each["state"] == "problem"}
    assert {"hub", "north-postgres", str(machine.home / "run" / "lock")} <= subjects
    stopped = await machine.run("down")
    assert stopped.code == 0
    assert "north-postgres" in stopped.stdout.split()
    assert [pid for pid in pids if identify(pid) is not None] == []
    assert (await machine.run("down")).code == 0


@pytest.mark.full
async def test_a_taken_port_is_named_with_who_has_it(machine: Machine) -> None:
    await machine.run("down")
    port = json.loads((machine.home / "ports.json").read_text())["north-postgres"]
    with socket.create_server(("127.0.0.1", port)):
        found = await machine.run("doctor", "-o", "json")
        assert found.code == 1
        [taken] = [each for each in found.json["findings"] if each["check"] == "ports"]
        assert taken["subject"] == "north-postgres"
        assert str(port) in taken["message"]
        assert str(os.getpid()) in taken["message"]
        assert taken["remedy"]
    found = await machine.run("doctor", "-o", "json")
    assert [each["state"] for each in found.json["findings"] if each["check"] == "ports"] == ["ok"]
    assert (await machine.run("status")).code == 7
