"""Exit codes, and how errors read: one line for each, never a traceback."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

import click

from hub.cli.colour import colour
from hub.client import errors
from hub.manifest import ManifestError
from schemas.problems import CalqueError


class Exit(IntEnum):
    """What the exit code of every command says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    FORBIDDEN = 4
    CONFLICT = 5
    TIMED_OUT = 6
    UNREACHABLE = 7
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "it failed; the error says why",
    Exit.USAGE: "the command line, a value or a file is not as it should be",
    Exit.NOT_FOUND: "what was named does not exist",
    Exit.FORBIDDEN: "the credentials do not allow it",
    Exit.CONFLICT: "it does not fit the present state: a name is taken, an image is still being saved, ...",
    Exit.TIMED_OUT: "the operation had not ended within --timeout; it goes on",
    Exit.UNREACHABLE: "no hub answers",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); a running operation goes on",
}

_BY_CLASS: tuple[tuple[type[Exception], Exit], ...] = (
    (ManifestError, Exit.USAGE),
    (errors.InvalidError, Exit.USAGE),
    (errors.NotFoundError, Exit.NOT_FOUND),
    (errors.ForbiddenError, Exit.FORBIDDEN),
    (errors.ConflictError, Exit.CONFLICT),
    (errors.WaitTimedOutError, Exit.TIMED_OUT),
    (errors.HubUnreachableError, Exit.UNREACHABLE),
)
_BY_CODE = {
    "invalid": Exit.USAGE,
    "not_found": Exit.NOT_FOUND,
    "forbidden": Exit.FORBIDDEN,
    "conflict": Exit.CONFLICT,
    "locked": Exit.CONFLICT,
}


def exit_code(error: CalqueError) -> Exit:
    """The exit code for ``error``."""
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            return code
    if isinstance(error, errors.ClientError):
        return Exit.FAILED
    return _BY_CODE.get(error.problem.code, Exit.FAILED)


def show_error(error: CalqueError) -> None:
    """Say on stderr what went wrong, what to do, and under which id to ask."""
    if isinstance(error, ManifestError):
        for fault in error.faults:
            _say(str(fault))
        return
    _say(error.problem.sentence())
    if isinstance(error, errors.OperationFailedError):
        for line in _aftermath(error):
            click.echo(f"        {line}", err=True)
    elif isinstance(error, errors.ClientError) and error.correlation:
        click.echo(f"        (command {error.correlation})", err=True)


def _aftermath(error: errors.OperationFailedError) -> list[str]:
    view = error.view
    cleaned = {
        "none": "nothing had been made",
        "done": "what it had made is removed",
        "pending": "what it had made is still being removed",
        "stuck": "what it had made could not be removed yet; it is tried again and again",
    }[view.cleanup]
    return [
        f"{view.kind} {view.name} {view.state}; {cleaned}",
        f"(operation {view.id}; see 'calque operation describe {view.id}')",
    ]


def show_unexpected(error: BaseException, *, home: Path) -> None:
    """Keep the traceback in a file of the home and name it."""
    text = "".join(traceback.format_exception(error))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for directory in (home / "logs", Path(tempfile.gettempdir())):
        file = directory / f"calque-error-{stamp}-{os.getpid()}.log"
        try:
            if directory.name == "logs":
                directory.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        except OSError:
            continue
        _say(f"an error inside calque ({type(error).__name__}); please report it with {file}")
        return
    _say(f"an error inside calque ({type(error).__name__}), and its details could not be written anywhere")


def _say(text: str) -> None:
    click.echo(f"{click.style('calque:', fg='red', bold=True)} {text}", err=True, color=colour(sys.stderr))
