"""The command line as its users see it: stdout, stderr and the exit code."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import msgspec
import pytest

from hub.cli.exits import Exit
from hub.cli.main import execute
from schemas import queries
from schemas.commands import Answer
from schemas.envelope import Envelope
from schemas.events import SiteJoined, SiteOnline
from schemas.operations import Step
from schemas.problems import Problem, conflict, forbidden, permanent
from tests.unit.cli.scripted import ScriptedHub, app, operation

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "hub.cli.main"]


ONE_AT_A_TIME = asyncio.Lock()


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


async def calque(home: Path, *arguments: str) -> Result:
    """Run a command line about the hub of ``home``."""
    return await execute_here("--home", str(home), *arguments)


async def execute_here(*arguments: str) -> Result:
    """Run a command line of the program inside this process, which is quicker than one of its own."""

    def run() -> Result:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = execute(list(arguments))
        return Result(code, out.getvalue(), err.getvalue())

    async with ONE_AT_A_TIME:
        result = await asyncio.wait_for(asyncio.to_thread(run), 60)
    assert "Traceback" not in result.err + result.out
    return result


def ended(hub: ScriptedHub, view: queries.OperationView) -> None:
    """Every operation ends like ``view``."""

    def answer(question: object) -> queries.OperationsView:
        assert isinstance(question, queries.OperationsQuery)
        return queries.OperationsView(operations=(msgspec.structs.replace(view, id=question.id or view.id),))

    hub.replies["operations"] = answer


async def test_an_empty_list_is_an_empty_array_and_no_table(hub: ScriptedHub, cli_home: Path) -> None:
    hub.replies["apps"] = lambda _: queries.AppsView(apps=())
    found = await calque(cli_home, "app", "list", "-o", "json")
    assert (found.code, json.loads(found.out), found.err) == (0, [], "")
    found = await calque(cli_home, "app", "list")
    assert (found.code, found.out) == (0, "")
    assert "no apps" in found.err


async def test_json_has_every_field_and_a_table_has_a_line_each(hub: ScriptedHub, cli_home: Path) -> None:
    evil = app("ideas", message="\x1b[31mred\nline")
    hub.replies["apps"] = lambda _: queries.AppsView(apps=(evil, app("other", stale=True)))
    [first, _] = json.loads((await calque(cli_home, "app", "list", "-o", "json")).out)
    assert set(first) == set(queries.AppView.__struct_fields__)
    lines = (await calque(cli_home, "app", "list")).out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "ideas", "other"]
    assert "UP (stale)" in lines[2]
    hub.replies["apps"] = lambda _: queries.AppsView(apps=(evil,))
    assert "\x1b" not in (await calque(cli_home, "app", "describe", "ideas")).out


async def test_deploy_waits_tells_steps_on_stderr_and_prints_the_app(hub: ScriptedHub, cli_home: Path) -> None:
    step = queries.StepView(step=Step(id="provision-ideas", action="provision", part="ideas"), state="done", attempt=2)
    ended(hub, operation("o", "succeeded", steps=(step,)))
    hub.replies["apps"] = lambda question: queries.AppsView(apps=(app("ideas", id=question.name),))  # type: ignore[attr-defined]
    found = await calque(cli_home, "deploy", "hackathon@1", "--site", "north", "--name", "ideas", "--set", "web.A=b=c")
    assert found.code == 0, found.err
    assert found.out == "ideas  running at north  http://127.0.0.1:1\n"
    assert "north: provision ideas: done (attempt 2)" in found.err
    assert json.loads(bytes(hub.received[0][1].data)) == {
        "name": "ideas",
        "site": "north",
        "template": {"name": "hackathon", "version": "1"},
        "environment": {"web": {"A": "b=c"}},
    }


async def test_no_wait_prints_the_operation_and_how_to_come_back(hub: ScriptedHub, cli_home: Path) -> None:
    found = await calque(cli_home, "deploy", "hackathon", "--site", "north", "--name", "ideas", "--no-wait")
    id = hub.received[0][1].id
    assert (found.code, found.out) == (0, f"{id}\n")
    assert f"calque operation wait {id}" in found.err
    found = await calque(cli_home, "deploy", "x", "--site", "north", "--name", "i", "--no-wait", "-o", "json")
    assert json.loads(found.out)["state"] == "accepted"


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (Problem(code="invalid", field="plan", message="no plan 'xl'", remedy="use small"), Exit.USAGE),
        (Problem(code="not_found", field="site", message="no site 'west'"), Exit.NOT_FOUND),
        (forbidden("not yours"), Exit.FORBIDDEN),
        (conflict("name", "taken"), Exit.CONFLICT),
        (permanent("cannot_serve", "no broker for search", field="data_services.index"), Exit.FAILED),
    ],
)
async def test_a_rejection_is_one_line_with_an_id_and_its_exit_code(
    hub: ScriptedHub, cli_home: Path, problem: Problem, code: Exit
) -> None:
    async def reject(envelope: Envelope) -> Answer:
        return Answer(command=envelope.id, state="rejected", problem=problem)

    hub.decide = reject
    found = await calque(cli_home, "deploy", "hackathon", "--site", "west", "--name", "ideas")
    assert found.code == code
    assert found.out == ""
    first, second = found.err.splitlines()
    assert first == f"calque: {problem.sentence()}"
    assert hub.received[0][1].id in second


async def test_a_failed_operation_says_why_and_whether_it_was_cleaned_up(hub: ScriptedHub, cli_home: Path) -> None:
    ended(hub, operation("o", "failed", problem=permanent("gone", "Postgres is gone", field="ideas"), cleanup="done"))
    found = await calque(cli_home, "operation", "wait", "o")
    assert found.code == Exit.FAILED
    assert "calque: ideas: Postgres is gone" in found.err
    assert "what it had made is removed" in found.err


async def test_the_wait_times_out(hub: ScriptedHub, cli_home: Path) -> None:
    ended(hub, operation("o", "running"))
    found = await calque(cli_home, "operation", "wait", "o", "--timeout", "0.3")
    assert found.code == Exit.TIMED_OUT
    assert "calque operation wait o" in found.err


async def test_an_unknown_thing_and_an_unreachable_hub(hub: ScriptedHub, cli_home: Path, tmp_path: Path) -> None:
    hub.replies["images"] = lambda _: queries.ImagesView(images=())
    found = await calque(cli_home, "image", "describe", "none")
    assert found.code == Exit.NOT_FOUND
    assert found.err == "calque: image: there is no image 'none'; see 'calque image list'\n"
    empty = tmp_path / "empty"
    found = await calque(empty, "status")
    assert found.code == Exit.UNREACHABLE
    assert "calque up" in found.err
    empty.mkdir()
    (empty / "context.json").write_text('{"servers": 3}')
    found = await calque(empty, "status")
    assert found.code == Exit.USAGE
    assert "context.json" in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("deploy", "x"),
        ("deploy", "x@", "--site", "a", "--name", "b"),
        ("deploy", "x", "--site", "a", "--name", "b", "--set", "novalue"),
        ("deploy", "x", "--site", "a", "--name", "b", "--plan", "=small"),
        ("deploy", "x", "--site", "a", "--name", "b", "--timeout", "soon"),
        ("app", "list", "-o", "xml"),
        ("app", "delete", "ideas"),
    ],
)
async def test_usage_errors_exit_with_2_and_change_nothing(
    hub: ScriptedHub, cli_home: Path, arguments: tuple[str, ...]
) -> None:
    hub.replies["apps"] = lambda _: queries.AppsView(apps=(app("ideas"),))
    found = await calque(cli_home, *arguments)
    assert found.code == Exit.USAGE
    assert hub.received == []
    assert found.out == ""
    assert "Error: " in found.err


async def test_a_broken_template_file_is_refused_by_place(hub: ScriptedHub, cli_home: Path) -> None:
    found = await calque(cli_home, "template", "apply", "examples/hackathon/broken/bad-port.yaml")
    assert found.code == Exit.USAGE
    assert found.err.startswith("calque: examples/hackathon/broken/bad-port.yaml:13:11: services.web.port: 80800 is no")
    assert hub.received == []


async def test_events_as_lines_of_json(hub: ScriptedHub, cli_home: Path) -> None:
    for site in ("north", "south"):
        await hub.record(f"calque.evt.hub.membership.{site}.online", SiteOnline(), source="hub")
    lines = (await calque(cli_home, "events", "-o", "json")).out.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2]
    assert json.loads(lines[0])["type"] == "calque.event.membership.online.v1"
    text = (await calque(cli_home, "events", "--after", "1")).out
    assert text.split()[0] == "2"
    assert "membership.online  south" in text


async def test_events_from_a_place_that_is_kept(hub: ScriptedHub, cli_home: Path) -> None:
    def sequences(ended: Result) -> list[int]:
        assert ended.code == 0, ended.err
        return [json.loads(line)["sequence"] for line in ended.out.splitlines()]

    for site in ("north", "south", "west"):
        await hub.record(f"calque.evt.hub.membership.{site}.online", SiteOnline(), source="hub")
    durable = ("events", "--durable", "mine", "-o", "json")
    assert sequences(await calque(cli_home, *durable, "--from-sequence", "2", "--type", "membership.online")) == [2, 3]
    assert sequences(await calque(cli_home, *durable)) == []
    await hub.record("calque.evt.hub.membership.east.online", SiteOnline(), source="hub")
    await hub.record("calque.evt.hub.membership.east.joined", SiteJoined(), source="hub")
    assert sequences(await calque(cli_home, *durable)) == [4]
    listed = (await calque(cli_home, "subscription", "list", "-o", "json")).out
    assert [(each["name"], each["types"]) for each in json.loads(listed)] == [("mine", ["membership.online"])]
    assert (await calque(cli_home, *durable, "--type", "copy")).code == Exit.CONFLICT
    assert (await calque(cli_home, "subscription", "delete", "mine")).code == Exit.USAGE
    assert (await calque(cli_home, "subscription", "delete", "mine", "--yes")).code == 0
    assert (await calque(cli_home, "subscription", "delete", "mine", "--yes")).code == Exit.NOT_FOUND
    assert (await calque(cli_home, *durable, "--after", "1", "--since", "1h")).code == Exit.USAGE
    assert (await calque(cli_home, "events", "--site", "a b")).code == Exit.USAGE
    assert sequences(await calque(cli_home, "events", "--since", "1h", "-o", "json")) == [1, 2, 3, 4, 5]


async def test_ctrl_c_detaches_and_says_how_to_come_back(hub: ScriptedHub, cli_home: Path) -> None:
    ended(hub, operation("o", "running"))
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "--home", str(cli_home), "operation", "wait", "o", stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stderr is not None
    assert b"running" in await asyncio.wait_for(process.stderr.readline(), 60)
    process.send_signal(signal.SIGINT)
    rest = (await asyncio.wait_for(process.stderr.read(), 60)).decode()
    assert await process.wait() == Exit.INTERRUPTED
    assert "calque operation wait o" in rest
    assert "Traceback" not in rest


async def test_a_terminal_is_asked_for_the_name_and_sees_progress(hub: ScriptedHub, cli_home: Path) -> None:
    step = queries.StepView(step=Step(id="remove-web", action="remove", part="web"), state="done")
    ended(hub, operation("o", "succeeded", steps=(step,)))
    hub.replies["apps"] = lambda _: queries.AppsView(apps=(app("ideas"),))
    for typed, code, commands in ((b"other\n", Exit.USAGE, 0), (b"ideas\n", Exit.OK, 1)):
        shown, exited = await asyncio.to_thread(_on_terminal, cli_home, typed)
        assert exited == code, shown
        assert len(hub.received) == commands
        assert "This removes ideas at north with all its data." in shown
    assert "remove web" in shown


def _on_terminal(home: Path, typed: bytes) -> tuple[str, int]:
    master, slave = pty.openpty()
    command = [*PROGRAM, "--home", str(home), "app", "delete", "ideas"]
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment)
    os.close(slave)
    os.write(master, typed)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    return shown.decode(), process.wait(20)


def test_an_error_inside_is_kept_in_a_file_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(_: Path) -> None:
        raise ZeroDivisionError("never seen")

    monkeypatch.setattr("hub.cli.session.load_context", explode)
    assert execute(["--home", str(tmp_path), "status"]) == Exit.FAILED
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "Traceback" not in said
    [file] = (tmp_path / "logs").iterdir()
    assert str(file) in said
    assert "never seen" in file.read_text()
