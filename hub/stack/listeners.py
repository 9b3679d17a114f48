"""Who listens on which port of this machine, from /proc (proc(5), ``/proc/net/tcp``)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from hub.stack.processes import PROC

_LISTEN = "0A"
_PORT, _STATE, _INODE = 1, 3, 9  # columns of /proc/net/tcp


class Listener(NamedTuple):
    """A process that listens. ``pid`` is ``None`` when it is not ours to see; ``ours`` when it bears the mark."""

    port: int
    pid: int | None
    command: str
    marked: bool


def listeners(ports: Collection[int], *, mark: str) -> dict[int, Listener]:
    """Those of ``ports`` that somebody listens on. ``mark`` is a ``NAME=value`` in the environment of a stack."""
    inodes = _listening(ports)
    if not inodes:
        return {}
    found: dict[int, Listener] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            for inode in _sockets(entry) & inodes.keys():
                port = inodes[inode]
                found[port] = Listener(port, int(entry.name), _command(entry), _marked(entry, mark))
    return {port: found.get(port) or Listener(port, None, "another user's process", False) for port in inodes.values()}


def _listening(ports: Collection[int]) -> dict[str, int]:
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            port = int(fields[_PORT].rpartition(":")[2], 16)
            if fields[_STATE] == _LISTEN and port in ports:
                found[fields[_INODE]] = port
    return found


def _sockets(process: Path) -> set[str]:
    found = set()
    try:
        for descriptor in (process / "fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:  # it ended, or is another user's
        return found
    return found


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        return Path(words[0].decode(errors="replace")).name or "?"
    except OSError:
        return "?"


def _marked(process: Path, mark: str) -> bool:
    try:
        return mark.encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
