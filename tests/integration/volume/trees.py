"""Trees as tests make them, and how they are compared: by a walk of this module's own, and by rsync where it is."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

OLD_NS = 1_234_567_890_123_456_789
# Version 2: owner rw-, user 1000 r--, group r--, mask r--, others ---
ACCESS_LIST = bytes.fromhex(
    "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff 20000000ffffffff"
)


class Seen(NamedTuple):
    """What can be seen of one entry. ``group`` names the first path of those that are one file."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: bytes
    xattrs: dict[str, bytes]
    group: bytes


def look(tree: Path) -> dict[bytes, Seen]:
    """Everything in a tree, itself included, by its path."""
    found: dict[bytes, Seen] = {}
    groups: dict[int, bytes] = {}
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        path = tree / os.fsdecode(below)
        info = os.lstat(path)
        content = b""
        if stat.S_ISDIR(info.st_mode):
            inside = (os.fsencode(each.relative_to(tree)) for each in path.iterdir())
            waiting += sorted(inside, reverse=True)
        elif stat.S_ISLNK(info.st_mode):
            content = os.fsencode(os.readlink(path))  # noqa: PTH115 - a Path would change it
        elif stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        attributes = os.listxattr(path, follow_symlinks=False)
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in attributes}
        group = groups.setdefault(info.st_ino, below) if not stat.S_ISDIR(info.st_mode) else below
        found[below] = Seen(
            stat.S_IFMT(info.st_mode),
            stat.S_IMODE(info.st_mode),
            (info.st_uid, info.st_gid),
            info.st_mtime_ns,
            content,
            xattrs,
            group,
        )
    return found


def same(one: Path, other: Path) -> None:
    """Fails unless both trees hold the same."""
    seen, expected = look(other), look(one)
    assert seen.keys() == expected.keys()
    assert {path: (seen[path], expected[path]) for path in seen if seen[path] != expected[path]} == {}
    if rsync := shutil.which("rsync"):
        arguments = ("-n", "-aHAX", "--checksum", "--delete", "--itemize-changes", f"{one}/", f"{other}/")
        ran = subprocess.run((rsync, *arguments), capture_output=True, check=True)
        assert ran.stdout == b""


def set_xattr(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError:
        pytest.skip(f"the file system of {path} has no attributes {name}")


def nasty(tree: Path) -> None:
    """Fill a tree with all that a copy must bear."""
    (tree / "plain").write_bytes(b"plain" * 1000)
    (tree / "empty").touch()
    (tree / "big").write_bytes(os.urandom(1 << 20) * 5 + b"end")
    (tree / "below" / "deeper").mkdir(parents=True)
    (tree / "below" / "file").write_bytes(b"x" * 70_000)
    (tree / "below" / "deeper" / "file").write_bytes(b"y")
    (tree / "no files").mkdir()
    (tree / "script").write_bytes(b"#!/bin/sh\n")
    (tree / "script").chmod(0o755)
    (tree / "link").symlink_to("plain")
    (tree / "dangling").symlink_to("no/such\nthing")
    (tree / "outward").symlink_to("/etc/passwd")
    (tree / "link to directory").symlink_to("below")
    (tree / "z other name of plain").hardlink_to(tree / "plain")
    (tree / "below" / "third name").hardlink_to(tree / "plain")
    os.link(tree / "link", tree / "same link", follow_symlinks=False)
    os.mkfifo(tree / "pipe", 0o620)
    for name in (
        b"\xff\xfe not UTF-8",
        b"new\nline",
        b"tab\tand \\ back",
        b"100%41",
        "日本 ünï".encode(),
        b" lead",
        b"-rf",
        b"n" * 255,
    ):
        (tree / os.fsdecode(name)).write_bytes(name)
        odd = tree / "below" / os.fsdecode(name)
        odd.mkdir()
        (odd / "in").write_bytes(b"1")
    with (tree / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(50 << 20)
    with (tree / "all hole").open("wb") as file:
        file.truncate(30 << 20)
    set_xattr(tree / "plain", "user.colour", b"\x00blue\xff")
    set_xattr(tree / "below", "user.empty", b"")
    set_xattr(tree / "script", "system.posix_acl_access", ACCESS_LIST)
    set_xattr(tree / "no files", "system.posix_acl_default", ACCESS_LIST)
    if os.geteuid() == 0:
        os.chown(tree / "empty", 1234, 4321)
        os.chown(tree / "dangling", 1234, 4321, follow_symlinks=False)
        (tree / "set id").touch()
        os.chown(tree / "set id", 1234, 4321)
        (tree / "set id").chmod(0o6755)
    (tree / "below" / "deeper" / "file").chmod(0o400)
    (tree / "below" / "deeper").chmod(0o500)
    os.utime(tree / "big", ns=(OLD_NS, OLD_NS))
    os.utime(tree / "link", ns=(OLD_NS, -1_500_000_000), follow_symlinks=False)
    os.utime(tree / "below", ns=(OLD_NS, OLD_NS))
    tree.chmod(0o750)
    os.utime(tree, ns=(OLD_NS, OLD_NS))
