"""Runs the commands of a page: each ``$ ...`` in its ``console`` blocks, and compares or replaces what is shown below.

What is another in every run (ids, times, sizes, ports, digests) is compared as its kind. Shown is what a command writes
to stdout; of one that fails also its errors. Progress, which goes to stderr, is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

COMMAND_SECONDS = 120.0
SHOWN_HOME = "/home/you/.local/share/calque"
_KINDS = (
    (re.compile(r"whsec_\S+"), "<secret>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"(?<![0-9A-Za-z])(?:CALQUE)?[0-9A-Fa-f]{12,64}(?![0-9A-Za-z])"), "<digest>"),
    (re.compile(r"\bU[A-Z2-7]{55}\b"), "<nkey>"),
    (re.compile(r"\bport=\d+"), "port=<port>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|\+00:00)"), "<time>"),
    (re.compile(r"^\d+ +(?=<time>)"), "<sequence> "),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+:\d+"), "<address>"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:[KMGT]i)?B\b"), "<size>"),
    (re.compile(r"\b\d+(?:\.\d+)? m?s\b"), "<duration>"),
    (re.compile(r"\b\d+[smhd]\b"), "<age>"),
    (re.compile(r"\b\d+ events\b"), "<count> events"),
    (re.compile(r"\bprocess \d+\b"), "process <pid>"),
    (re.compile(r"\b\d+\.\d+(?:\.\d+)?\b"), "<number>"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"-{3,}"), "---"),
)


@dataclass(frozen=True)
class Step:
    """One command and what the page shows below it. ``first`` and ``last`` are lines of the page, from 0; the lines
    between are what is shown."""

    command: str
    shown: tuple[str, ...]
    first: int
    last: int


@dataclass(frozen=True)
class Walked:
    """A step that was taken."""

    step: Step
    code: int
    output: tuple[str, ...]


def steps(page: str) -> Iterator[Step]:
    """The commands of the ``console`` blocks of ``page``, in order."""
    lines = page.splitlines()
    inside = False
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.startswith("```"):
            inside = line.strip() == "```console"
        elif inside and line.startswith("$ "):
            first = number
            command = line[2:]
            while command.endswith("\\"):
                number += 1
                command = command[:-1].rstrip() + " " + lines[number].strip()
            after = number + 1
            end = after
            while not lines[end].startswith(("$ ", "```")):
                end += 1
            yield Step(command, tuple(lines[after:end]), after if after > first else first, end)
            number = end
            continue
        number += 1


def walk(page: str, *, home: Path, directory: Path) -> Iterator[Walked]:
    """Take every step, in ``directory``, with the stack in ``home``."""
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "CALQUE_HOME": str(home),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    for step in steps(page):
        yield _take(step, home=home, directory=directory, environment=environment)


def _take(step: Step, *, home: Path, directory: Path, environment: Mapping[str, str]) -> Walked:
    done = subprocess.run(
        ["bash", "-c", step.command],
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    said = done.stdout + (done.stderr if done.returncode else "")
    said = said.replace(str(home), SHOWN_HOME).replace(str(directory.parents[1]), "/home/you/calque")
    return Walked(step, done.returncode, tuple(line.rstrip() for line in said.splitlines()))


def kind_of(line: str) -> str:
    """A line with what is another in every run replaced by its kind."""
    for pattern, kind in _KINDS:
        line = pattern.sub(kind, line)
    return line.strip()


def differs(walked: Walked) -> str | None:
    """What a reader of the page would find to be different, ``None`` when nothing is."""
    shown = [kind_of(line) for line in walked.step.shown if line.strip()]
    found = [kind_of(line) for line in walked.output if line.strip()]
    if shown == found:
        return None
    return "\n".join(
        (f"$ {walked.step.command}   (exit code {walked.code})", "the page shows:", *shown, "the program says:", *found)
    )


def rewritten(page: str, taken: list[Walked]) -> str:
    """The page with what the program said."""
    lines = page.splitlines()
    for walked in reversed(taken):
        lines[walked.step.first : walked.step.last] = walked.output
    return "\n".join(lines) + "\n"
