"""What a process writes to its log."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from bus.loglines import JsonLines, TextLines, log_lines
from bus.scope import scope
from bus.tracing import carried
from hub.cli.loglines import of_operation, read
from schemas.secrets import Secret
from schemas.traces import parse

OPERATION = "0199f3c2-0000-7000-8000-00000000abcd"


def record(message: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    info = None
    if error:
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("hub.process", logging.WARNING, "p", 1, message, arguments, info)


def test_a_line_of_json_says_what_the_work_at_hand_belongs_to() -> None:
    lines = JsonLines(process="agent of site north", site="north")
    plain = json.loads(lines.format(record("all is %s", "well")))
    assert {name: plain[name] for name in ("level", "logger", "message", "process", "site")} == {
        "level": "warning",
        "logger": "hub.process",
        "message": "all is well",
        "process": "agent of site north",
        "site": "north",
    }
    assert plain["time"].endswith("Z")
    assert not {"operation", "correlation", "trace", "error"} & plain.keys()
    with scope(operation=OPERATION, correlation="c"):
        within = json.loads(lines.format(record("x")))
        assert (within["operation"], within["correlation"]) == (OPERATION, "c")
        assert within["trace"] == OPERATION.replace("-", "")
        with scope(operation="other"), carried(parse("00-" + "a" * 32 + "-" + "b" * 16 + "-01")):
            inner = json.loads(lines.format(record("x")))
        assert (inner["operation"], inner["correlation"], inner["trace"]) == ("other", "c", "a" * 32)
    assert "operation" not in json.loads(lines.format(record("x")))


def test_every_record_is_one_line_and_a_secret_is_not_in_it() -> None:
    secret = Secret(value="hunter2")
    for lines in (JsonLines(process="p", site="s"), TextLines()):
        text = lines.format(record("a\nb %s %r", secret, {"password": secret}, error=True))
        assert "\n" not in text
        assert "second" in text
        assert "hunter2" not in text


@pytest.mark.parametrize(
    ("chosen", "terminal", "json_expected"),
    [("auto", False, True), ("auto", True, False), ("text", False, False), ("json", True, True)],
)
def test_the_format_is_chosen(
    chosen: str, terminal: bool, json_expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        log_lines("info", format=chosen, process="p", site="s")  # type: ignore[arg-type]
        logging.getLogger("x").info("hello")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert stderr.getvalue().startswith("{") == json_expected
    assert "hello" in stderr.getvalue()


def test_lines_are_shown_to_people_and_followed_through_all_logs(tmp_path: Path) -> None:
    def write(part: str, *documents: dict[str, str]) -> None:
        (tmp_path / f"{part}.log").write_text("".join(json.dumps(each) + "\n" for each in documents))

    def line(time: str, message: str, **more: str) -> dict[str, str]:
        return {"time": time, "level": "info", "logger": "l", "message": message, **more}

    write(
        "hub",
        line("1", "taken", operation=OPERATION),
        line("2", "other", operation="z"),
        line("5", "done", operation=OPERATION),
    )
    write("agent", line("3", "step", operation=f"{OPERATION}/transfer/1"), line("4", "asked", correlation=OPERATION))
    (tmp_path / "server.log").write_text("no json\n")
    files = {file.stem: file for file in tmp_path.glob("*.log")}
    found = list(of_operation(files, OPERATION))
    assert [(each.part, each.record["message"]) for each in found] == [
        ("hub", "taken"),
        ("agent", "step"),
        ("agent", "asked"),
        ("hub", "done"),
    ]
    assert found[1].shown == f"3 INFO l step [operation={OPERATION}/transfer/1]"
    assert read("p", "{ no json").shown == "{ no json"
    assert read("p", '{"a": 1}').record == {}
    assert read("p", "text").document() == {"part": "p", "line": "text"}
