"""Checks of the stack that runs on this machine, without a word to the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hub.cli.findings import Finding, ok, problem, skipped
from hub.cli.loglines import read
from hub.cli.output import size
from hub.stack.errors import StackError
from hub.stack.files import read_json
from hub.stack.layout import HomeLayout
from hub.stack.listeners import Listener, listeners
from hub.stack.logfiles import last_lines
from hub.stack.ports import HIGHEST, PAIRED_HIGHEST, SEAWEEDFS_GRPC_OFFSET
from hub.stack.running import RunningStack
from hub.stack.supervisor import stack_mark
from hub.stack.upgrade import LAYOUT, read_record

LEAST_FREE_BYTES = 1 << 30
LEAST_FREE_SHARE = 0.05
LOG_LINES = 5
RESTARTS_TOO_MANY = 3


def check_left_behind(stack: RunningStack) -> list[Finding]:
    """What a stack that was killed left: parts that run on, its lock and record."""
    found = [
        problem(
            "stack",
            name,
            f"process {orphan.pid} runs on, though nobody keeps the stack",
            "stop it with 'calque down', or go on with 'calque up'",
        )
        for name, orphan in stack.orphans.items()
    ]
    if stack.killed is not None:
        found.append(
            problem(
                "stack",
                str(HomeLayout(stack.home).run / "lock"),
                f"it names process {stack.killed.pid}, which was killed and could not clean up",
                "clean up with 'calque down', or go on with 'calque up'",
            )
        )
    if found:
        return found
    if stack.keeper is None:
        return [ok("stack", f"no stack runs in {stack.home}, and none left anything behind")]
    return [ok("stack", f"process {stack.keeper.pid} runs the stack in {stack.home}")]


def check_parts(stack: RunningStack) -> list[Finding]:
    """Parts that do not run, or were started again often; with the end of their logs."""
    if stack.keeper is None:
        return [skipped("parts", "no stack runs here")]
    found = []
    logs = HomeLayout(stack.home).logs
    for name, part in stack.parts.items():
        file = logs / f"{name}.log"
        details = tuple(read(name, line).shown for line in last_lines(file, lines=LOG_LINES))
        again = f"see 'calque logs {name}'; when the cause is gone it comes back by itself"
        if part.phase in ("backoff", "failed"):
            state = "is given up" if part.phase == "failed" else "is down and started again and again"
            found.append(problem("parts", name, f"it {state}: {part.cause or 'it ended'}", again, details=details))
        elif part.restarts >= RESTARTS_TOO_MANY:
            found.append(
                problem(
                    "parts",
                    name,
                    f"it was started again {part.restarts} times, the last time since it {part.cause or 'ended'}",
                    f"see 'calque logs {name}' for the cause",
                    details=details,
                )
            )
        elif part.phase != "ready" and stack.ready:
            found.append(problem("parts", name, f"it is {part.phase}", "look again in a moment", details=details))
    return found or [ok("parts", f"{len(stack.parts)} parts run")]


def check_ports(stack: RunningStack) -> list[Finding]:
    """Ports that the stack remembers as its own, and that another program listens on."""
    layout = HomeLayout(stack.home)
    try:
        known = read_json(layout.ports) or {}
    except (json.JSONDecodeError, OSError) as error:
        return [problem("ports", str(layout.ports), f"it can't be read: {error}", "remove it, then 'calque up'")]
    wanted = {int(port): str(name) for name, port in known.items()}
    # SeaweedFS listens a second time, at a fixed distance.
    wanted |= {
        port + SEAWEEDFS_GRPC_OFFSET: name
        for port, name in wanted.items()
        if "-s3" in name and port <= PAIRED_HIGHEST and port + SEAWEEDFS_GRPC_OFFSET <= HIGHEST
    }
    if not wanted:
        return [skipped("ports", "the stack has no ports yet")]
    strangers = [each for each in listeners(wanted, mark=stack_mark(layout.run)).values() if _strange(each, stack)]
    found = [
        problem(
            "ports",
            wanted[each.port],
            f"port {each.port} is taken by {each.command}" + (f" (process {each.pid})" if each.pid else ""),
            "stop that program, and the part comes up by itself"
            if stack.keeper
            else "stop that program to keep the port; else 'calque up' picks another one",
        )
        for each in sorted(strangers)
    ]
    return found or [ok("ports", f"none of {len(wanted)} ports is held by another program")]


def check_home(home: Path) -> list[Finding]:
    """Whether this version can run the home."""
    layout = HomeLayout(home)
    try:
        record = read_record(layout)
    except StackError as error:
        return [problem("home", str(layout.record), str(error), "see above")]
    if record is None:
        return [skipped("home", "there is none yet")]
    if record.layout > LAYOUT:
        said = (
            f"calque {record.version} wrote it (layout {record.layout}), and this version knows layouts up to {LAYOUT}"
        )
        return [problem("home", str(home), said, f"install calque {record.version} or later")]
    if record.layout < LAYOUT:
        return [ok("home", f"calque {record.version} wrote it; the next 'calque up' upgrades it")]
    return [ok("home", f"calque {record.version} wrote it")]


def check_disk(home: Path) -> list[Finding]:
    """Whether the disk of the home has room."""
    there = next(path for path in (home, *home.parents) if path.exists())
    usage = shutil.disk_usage(there)
    room = f"{size(usage.free)} of {size(usage.total)} free"
    if usage.free < LEAST_FREE_BYTES or usage.free < usage.total * LEAST_FREE_SHARE:
        remedy = "free some: delete images with 'calque image delete', or move the home"
        return [problem("disk", str(there), f"the disk is nearly full: {room}", remedy)]
    return [ok("disk", room)]


def _strange(each: Listener, stack: RunningStack) -> bool:
    if each.marked:
        return False
    # Of another user's process one can't see whose child it is: a part that runs has its port.
    return each.pid is not None or stack.keeper is None or any(part.phase != "ready" for part in stack.parts.values())
