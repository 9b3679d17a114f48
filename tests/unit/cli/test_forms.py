"""The forms of output: wide, YAML, names; watched lists; tables that fit; colours; logs; names that are reused."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import yaml

from hub.cli.kinds import APPS
from hub.cli.lists import changes
from hub.cli.tables import table_lines
from hub.client import Client, ConflictError, NotFoundError
from hub.stack.logfiles import follow, last_lines
from schemas import queries
from tests.unit.cli.scripted import ScriptedHub, app
from tests.unit.cli.test_commands import PROGRAM, ROOT, calque


async def test_yaml_wide_and_names(hub: ScriptedHub, cli_home: Path) -> None:
    there = (app("ideas"), app("ideas", site="south"), app("other"))
    hub.replies["apps"] = lambda _: queries.AppsView(apps=there)
    [first, *_] = yaml.safe_load((await calque(cli_home, "app", "list", "-o", "yaml")).out)
    assert set(first) == set(queries.AppView.__struct_fields__)
    assert there[0].id in (await calque(cli_home, "app", "list", "-o", "wide")).out
    assert there[0].id not in (await calque(cli_home, "app", "list")).out
    names = (await calque(cli_home, "app", "list", "-o", "name")).out.split()
    assert names == [there[0].id, there[1].id, "other"]
    hub.replies["apps"] = lambda _: queries.AppsView(apps=())
    empty = await calque(cli_home, "app", "list", "-o", "name")
    assert (empty.out, empty.err) == ("", "")


@pytest.mark.full
async def test_a_watched_list_tells_changes_as_lines_of_json(hub: ScriptedHub, cli_home: Path) -> None:
    there: list[queries.AppView] = [app("ideas")]
    hub.replies["apps"] = lambda _: queries.AppsView(apps=tuple(there))
    command = [*PROGRAM, "--home", str(cli_home), "app", "list", "--watch", "-o", "json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None

    async def told() -> tuple[str, str]:
        assert process.stdout is not None
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        return line["change"], line["object"]["state"]

    assert await told() == ("added", "running")
    there[0] = msgspec.structs.replace(there[0], state="stopped")
    assert await told() == ("changed", "stopped")
    there.clear()
    assert await told() == ("removed", "stopped")
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 60) == 130


async def test_a_watched_list_is_redrawn_on_a_terminal(hub: ScriptedHub, cli_home: Path) -> None:
    hub.replies["apps"] = lambda _: queries.AppsView(apps=(app("ideas"),))
    shown = await asyncio.to_thread(_watch_on_terminal, cli_home)
    assert shown.count("ideas") >= 2
    assert "\x1b[2F\x1b[J" in shown  # the two lines of the table are drawn over


def _watch_on_terminal(home: Path) -> str:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    command = [*PROGRAM, "--home", str(home), "app", "list", "--watch", "--no-color"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment)
    os.close(slave)
    shown = b""
    while shown.count(b"ideas") < 2:
        shown += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    os.close(master)
    assert b"\x1b[1m" not in shown
    return shown.decode()


def test_changes_are_told_by_id() -> None:
    one, two = app("one"), app("two")
    again = msgspec.structs.replace(one, state="stopped")
    assert changes(APPS, [one, two], [again]) == [("changed", again), ("removed", two)]
    assert changes(APPS, [], [two]) == [("added", two)]
    assert changes(APPS, [one], [one]) == []


@pytest.mark.parametrize("width", [None, 60, 40, 5])
def test_a_table_fits_its_width_but_for_firm_columns(width: int | None) -> None:
    rows: Sequence[Sequence[object]] = [("i" * 36, "x" * 80, "short"), ("id", "日本語" * 30, "s")]
    lines = table_lines(("id", "text", "last"), rows, firm=frozenset({"id"}), width=width)
    assert lines[1].startswith("i" * 36)
    if width is None:
        assert "x" * 80 in lines[1]
    elif width == 60:
        assert max(len(line) for line in lines[:2]) <= 60
        assert "…" in lines[1]
        assert "…" in lines[2]
    assert table_lines(("a",), []) == []


async def test_a_name_means_the_app_that_holds_it_now(hub: ScriptedHub, client: Client) -> None:
    gone = [app("ideas", state="failed", changed_at=f"2026-01-0{day}T00:00:00.000000Z") for day in (1, 2)]
    gone.append(app("ideas", state="deleted", changed_at="2025-01-01T00:00:00.000000Z"))
    live: list[queries.AppView] = []

    def answer(question: object) -> queries.AppsView:
        assert isinstance(question, queries.AppsQuery)
        known = [*live, *gone] if question.all else live
        return queries.AppsView(apps=tuple(each for each in known if question.name in (None, each.name, each.id)))

    hub.replies["apps"] = answer
    with pytest.raises(NotFoundError, match=gone[1].id):
        await client.app("ideas")
    assert (await client.app(gone[0].id)).id == gone[0].id
    live.append(app("ideas"))
    assert (await client.app("ideas")).id == live[0].id
    assert (await client.app(gone[2].id)).state == "deleted"
    live.append(app("ideas", site="south"))
    with pytest.raises(ConflictError, match="--site"):
        await client.app("ideas")


async def test_a_log_is_followed_over_its_rotation(tmp_path: Path) -> None:
    file = tmp_path / "part.log"
    file.write_text("one\ntwo\nthree\n")
    assert last_lines(file, lines=2) == ["two", "three"]
    assert last_lines(file, lines=0) == []
    assert last_lines(tmp_path / "none.log", lines=5) == []
    lines = follow(file, lines=1)

    async def following() -> str:
        return await asyncio.wait_for(anext(lines), 60)

    assert await following() == "three"
    with file.open("a") as stream:
        stream.write("fo")
        stream.flush()
        stream.write("ur\n")
    assert await following() == "four"
    file.replace(tmp_path / "part.log.1")
    file.write_text("five\n" + "more\n" * 20)
    assert await following() == "five"
    await lines.aclose()  # type: ignore[attr-defined]
