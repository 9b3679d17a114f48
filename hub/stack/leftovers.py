"""The record of a running part, and stopping what a killed supervisor left behind."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from hub.stack.errors import StackError
from hub.stack.files import write_json
from hub.stack.processes import ProcessIdentity, end_session, is_running


def record(file: Path, identity: ProcessIdentity, *, number: signal.Signals, grace: float) -> None:
    """Remember a running part: who it is and how it wants to be stopped."""
    write_json(
        file,
        {"pid": identity.pid, "started": identity.started, "stop_signal": number.name, "stop_grace": grace},
    )


def running_leftovers(directory: Path) -> dict[str, ProcessIdentity]:
    """The recorded parts that run, by name; damaged records are left out."""
    found = {}
    for file in sorted(directory.glob("*.json")):
        try:
            known: dict[str, Any] = json.loads(file.read_bytes())
            leader = ProcessIdentity(pid=int(known["pid"]), started=int(known["started"]))
        except (OSError, ValueError, KeyError):
            continue
        if is_running(leader):
            found[file.stem] = leader
    return found


async def end_leftovers(directory: Path) -> list[str]:
    """Stop every recorded part that still runs, all at once; the names of those that are recorded.

    Raises `StackError` when one does not go away.
    """
    files = sorted(directory.glob("*.json"))

    async def end(file: Path) -> None:
        try:
            known: dict[str, Any] = json.loads(file.read_bytes())
            leader = ProcessIdentity(pid=int(known["pid"]), started=int(known["started"]))
            number, grace = signal.Signals[known["stop_signal"]], float(known["stop_grace"])
        except (ValueError, KeyError) as cause:
            raise StackError(f"{file} is damaged ({cause}): see which process it names, remove it") from cause
        if not await end_session(leader, number=number, grace=grace):
            raise StackError(f"{file.stem} of an earlier run, process {leader.pid}, can't be stopped: stop it")
        file.unlink(missing_ok=True)

    await asyncio.gather(*(end(file) for file in files))
    return [file.stem for file in files]
