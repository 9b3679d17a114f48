"""Which files of a running cluster belong into a copy of it.

Those stay out that PostgreSQL's own base backups leave out: what belongs to the running server, the contents of
temporary and unlogged relations, the log, which travels by itself. Configuration is no part of a copy either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CONTROL = "global/pg_control"
LABEL = "backup_label"
LOG_DIRECTORY = "pg_wal"
RELATION = re.compile(r"(?P<node>[0-9]+)(?:_(?P<fork>fsm|vm|init))?(?:\.(?P<segment>[0-9]+))?")
"""The name of a file of a relation."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""What is called otherwise was put there by somebody else."""
_EMPTY = frozenset(
    (
        LOG_DIRECTORY,
        *("pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"),
    )
)
"""Directories whose files the server makes anew."""
_LEFT_OUT = frozenset(
    (
        *("postmaster.pid", "postmaster.opts", "current_logfiles", LABEL, "tablespace_map", "backup_manifest"),
        *("postgresql.conf", "postgresql.auto.conf", "postgresql.auto.conf.tmp", "pg_hba.conf", "pg_ident.conf"),
        *("recovery.signal", "standby.signal"),
    )
)
_TEMPORARY = re.compile(r"t[0-9]+_[0-9]+(?:_(?:fsm|vm|init))?(?:\.[0-9]+)?")


class Tree(NamedTuple):
    """Directories and files below a cluster's data directory, by path from there, parents first; the files with the
    sizes in bytes that they had when they were looked at."""

    directories: list[str]
    files: list[tuple[str, int]]

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(size for _, size in self.files)


def tree_of(data: Path) -> Tree:
    """What a copy of the cluster consists of but for :data:`CONTROL`. What goes meanwhile is left out. Blocking."""
    tree = Tree([], [])
    for path, size in _walk(data, ""):
        if size is None:
            tree.directories.append(path)
        elif path != CONTROL:
            tree.files.append((path, size))
    return tree


def _walk(directory: Path, prefix: str) -> Iterator[tuple[str, int | None]]:
    """Paths with sizes; those of directories have none."""
    try:
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    unlogged = {entry.name.removesuffix("_init") for entry in entries if entry.name.endswith("_init")}
    empty = prefix.partition("/")[0] in _EMPTY
    for entry in entries:
        path = prefix + entry.name
        if not _NAME.fullmatch(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            if not prefix.startswith("pg_replslot/") and not entry.name.startswith("pgsql_tmp"):
                yield path, None
                yield from _walk(directory / entry.name, f"{path}/")
        elif not empty and entry.is_file(follow_symlinks=False) and _belongs(path, entry.name, unlogged):
            try:
                yield path, entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue


def _belongs(path: str, name: str, unlogged: set[str]) -> bool:
    if path in _LEFT_OUT or name.startswith(("pg_internal.init", "pgsql_tmp")):
        return False
    if not path.startswith("base/"):
        return True
    if _TEMPORARY.fullmatch(name):
        return False
    relation = RELATION.fullmatch(name)
    return relation is None or relation["fork"] == "init" or relation["node"] not in unlogged


# The polynomial of CRC-32C, reflected.
_POLYNOMIAL = 0x82F63B78
_FIRST_BYTES, _SECTOR_BYTES = 128, 512


def control_is_whole(content: bytes) -> bool:
    """Whether a control file was read whole, not while it was written: somewhere in its first sector, where depends
    on the version, stands the CRC-32C of all before it."""
    crc = 0xFFFFFFFF
    for at, byte in enumerate(content[:_SECTOR_BYTES]):
        if at >= _FIRST_BYTES and at % 4 == 0 and content[at : at + 4] == (crc ^ 0xFFFFFFFF).to_bytes(4, "little"):
            return True
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return False
