"""The supervisor on real processes: order, restarts, bounded stops, leftovers of a killed run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub.stack.embedded import EmbeddedStack
from hub.stack.errors import HomeInUse, PartFailed, StackError
from hub.stack.keeper import Backoff
from hub.stack.parts import Part
from hub.stack.probes import file_appears
from hub.stack.processes import ProcessIdentity, identify, is_running
from hub.stack.supervisor import Places, Supervisor
from tests.patience import patience

QUICK = Backoff(first=0.05, longest=0.4, stable_after=30.0, attempts=3)


async def until(true: Callable[[], bool], *, within: float = 15.0) -> None:
    """Look again and again until it is so; fail at the deadline."""
    deadline = asyncio.get_running_loop().time() + patience(within)
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "did not come true in time"
        await asyncio.sleep(0.02)


def script(home: Path, name: str, body: str, **options: Any) -> Part:
    """A part that runs shell text with `$READY` as its ready file."""
    ready = home / f"{name}.ready"

    async def prepare() -> None:
        ready.unlink(missing_ok=True)

    settings: dict[str, Any] = {
        "prepare": prepare,
        "ready": file_appears(ready),
        "ready_timeout": 10.0,
        "stop_grace": 3.0,
        "env": {"READY": str(ready), "HOME_DIR": str(home)},
        **options,
    }
    return Part(name=name, argv=("/bin/sh", "-c", body), **settings)


def stack(home: Path, *parts: Part, backoff: Backoff = QUICK) -> Supervisor:
    return Supervisor(parts, places=Places(logs=home / "logs", run=home / "run"), backoff=backoff)


def status(home: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((home / "run" / "status.json").read_bytes())
    parts: dict[str, Any] = document["parts"]
    return parts


def process(home: Path, part: str) -> ProcessIdentity:
    known = json.loads((home / "run" / "parts" / f"{part}.json").read_bytes())
    return ProcessIdentity(pid=known["pid"], started=known["started"])


WAITS = 'trap "echo $0 >> $HOME_DIR/ended; exit 0" TERM; touch $READY; while :; do sleep 0.05; done'


def waiting(name: str) -> str:
    return WAITS.replace("$0", name)


async def test_parts_start_and_stop_in_the_order_of_their_needs(tmp_path: Path) -> None:
    supervisor = stack(
        tmp_path,
        script(tmp_path, "web", f"test -e {tmp_path}/db.ready || exit 9; {waiting('web')}", depends=("db",)),
        script(tmp_path, "db", f"sleep 0.3; {waiting('db')}"),
    )
    await supervisor.start()
    assert {name: part["phase"] for name, part in status(tmp_path).items()} == {"web": "ready", "db": "ready"}
    assert status(tmp_path)["web"]["restarts"] == 0
    await supervisor.stop()
    assert (tmp_path / "ended").read_text().split() == ["web", "db"]
    assert {part["phase"] for part in status(tmp_path).values()} == {"stopped"}
    assert list((tmp_path / "run" / "parts").iterdir()) == []


def restarted(home: Path, times: int) -> bool:
    return bool(status(home)["part"]["restarts"] == times)


async def test_a_crashed_part_is_started_again_later_and_later(tmp_path: Path) -> None:
    supervisor = stack(tmp_path, script(tmp_path, "part", waiting("part")))
    await supervisor.start()
    waits = []
    loop = asyncio.get_running_loop()
    for expected in (1, 2, 3):
        pid = supervisor.states["part"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        began = loop.time()
        await until(partial(restarted, tmp_path, expected))
        waits.append(loop.time() - began)
        await until(lambda: supervisor.states["part"].phase == "ready")
        assert supervisor.states["part"].cause == "ended by signal 9"
    assert [wait >= QUICK.delay(failures) for failures, wait in enumerate(waits, 1)] == [True, True, True]
    await supervisor.stop()


def test_the_wait_grows_to_a_limit() -> None:
    backoff = Backoff(first=1.0, longest=5.0)
    assert [backoff.delay(failures) for failures in (1, 2, 3, 4, 1000)] == [1.0, 2.0, 4.0, 5.0, 5.0]


async def test_a_part_that_does_not_obey_is_killed_with_its_children_in_time(tmp_path: Path) -> None:
    body = f'trap "" TERM; sh -c \'trap "" TERM; echo $$ > {tmp_path}/child; while :; do sleep 0.1; done\' & '
    body += f"while ! test -s {tmp_path}/child; do sleep 0.02; done; touch $READY; while :; do sleep 0.1; done"
    supervisor = stack(
        tmp_path,
        script(tmp_path, "base", body.replace("child", "child-1"), stop_grace=60.0),
        script(tmp_path, "upper", body.replace("child", "child-2"), stop_grace=60.0, depends=("base",)),
    )
    await supervisor.start()
    left = [identify(int((tmp_path / f"child-{number}").read_text())) for number in (1, 2)]
    left += [process(tmp_path, name) for name in ("base", "upper")]
    loop = asyncio.get_running_loop()
    began = loop.time()
    await supervisor.stop(within=3.0)
    assert loop.time() - began < 60.0, "it waited for the grace of a part"
    assert [identity for identity in left if identity is None or is_running(identity)] == []


async def test_what_left_its_session_is_stopped_too(tmp_path: Path) -> None:
    body = f"setsid sh -c 'echo $$ > {tmp_path}/far; exec sleep 600' & {waiting('part')}"
    supervisor = stack(tmp_path, script(tmp_path, "part", body))
    await supervisor.start()
    await until(lambda: (tmp_path / "far").exists() and (tmp_path / "far").read_text() != "")
    far = identify(int((tmp_path / "far").read_text()))
    assert far is not None
    await supervisor.stop()
    await until(lambda: not is_running(far))


async def test_a_part_that_never_gets_ready_fails_the_start_and_stops_the_others(tmp_path: Path) -> None:
    supervisor = stack(
        tmp_path,
        script(tmp_path, "good", waiting("good")),
        script(tmp_path, "bad", "echo no such luck >&2; exit 3"),
    )
    with pytest.raises(PartFailed, match=r"(?s)bad exited with status 3; .*no such luck") as failed:
        await supervisor.start()
    assert str(tmp_path / "logs" / "bad.log") in str(failed.value)
    assert supervisor.states["good"].phase == "stopped"
    assert list((tmp_path / "run" / "parts").iterdir()) == []


async def test_a_part_that_hangs_fails_the_start(tmp_path: Path) -> None:
    part = script(tmp_path, "slow", "sleep 600", ready_timeout=0.3, stop_grace=0.2)
    supervisor = stack(tmp_path, part, backoff=Backoff(first=0.05, attempts=1))
    with pytest.raises(PartFailed, match=r"slow was not ready within 0\.3 s: last seen: .* is not there yet"):
        await supervisor.start()


async def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    supervisor = stack(tmp_path, Part(name="gone", argv=("/nowhere/at/all",)))
    with pytest.raises(PartFailed, match=r"gone can't be started: .*/nowhere/at/all"):
        await supervisor.start()


async def test_the_next_start_stops_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from tests.integration.stack.test_supervisor import script, stack, waiting

async def main():
    home = Path({str(tmp_path)!r})
    await stack(home, script(home, "part", waiting("part"))).start()
    (home / "up").touch()
    await asyncio.Event().wait()

asyncio.run(main())
"""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    await until((tmp_path / "up").exists)
    killed.kill()
    await killed.wait()
    left = process(tmp_path, "part")
    assert is_running(left)
    supervisor = stack(tmp_path, script(tmp_path, "part", waiting("part")))
    await supervisor.start()
    assert not is_running(left)
    assert is_running(process(tmp_path, "part"))
    await supervisor.stop()


async def test_a_recycled_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    known = identify(stranger.pid)
    assert known is not None
    (tmp_path / "run" / "parts").mkdir(parents=True)
    record = {"pid": known.pid, "started": known.started - 1, "stop_signal": "SIGTERM", "stop_grace": 1.0}
    (tmp_path / "run" / "parts" / "old.json").write_text(json.dumps(record))
    supervisor = stack(tmp_path, script(tmp_path, "part", waiting("part")))
    await supervisor.start()
    assert is_running(known)
    await supervisor.stop()
    assert is_running(known)
    stranger.kill()
    await stranger.wait()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((("a", ("b",)),), "depends on b, which is not among the parts"),
        ((("a", ("b",)), ("b", ("a",))), "depends on itself by way of a -> b -> a"),
        ((("a", ()), ("a", ())), "the name is used twice"),
    ],
)
def test_parts_that_make_no_sense_are_refused(
    tmp_path: Path, parts: tuple[tuple[str, tuple[str, ...]], ...], message: str
) -> None:
    with pytest.raises(StackError, match=message):
        stack(tmp_path, *(Part(name=name, argv=("true",), depends=needs) for name, needs in parts))


async def test_a_second_stack_on_one_home_is_told_who_has_it(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, sites=("north",), parts=("north-nats",)):
        with pytest.raises(HomeInUse, match=f"in use by process {os.getpid()}"):
            await EmbeddedStack(tmp_path, sites=("north",), parts=("north-nats",)).start()
    async with EmbeddedStack(tmp_path, sites=("north",), parts=("north-nats",)) as again:
        assert again.states["north-nats"].phase == "ready"
