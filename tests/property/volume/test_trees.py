"""Any tree comes back as it was at the moment, whatever its names, and whatever was done since it was staged."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from brokers.sdk.frames import EntryBegin
from brokers.volume.inventory import Earlier, order_of, read_inventory, write_inventory
from brokers.volume.linux import clones
from brokers.volume.paths import ROOT_KEY, decode, encode, key_of, parts_of
from brokers.volume.reading import entries
from brokers.volume.restoring import Restorer
from brokers.volume.survey import Content, Survey
from brokers.volume.threads import Stop
from tests.integration.volume.trees import OLD_NS, Seen, look

# NUL and '/' are all that a name can't have
NAMES = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"\0", b"0").replace(b"/", b"|"))
TAME = NAMES.filter(lambda name: name not in (b".", b".."))


@dataclass(frozen=True)
class Put:
    """One change to a tree: something is made, in place of what was there, or removed."""

    folders: tuple[bytes, ...]
    name: bytes
    kind: str
    data: bytes
    mode: int
    mtime: int


FEW = st.sampled_from([b"a", b"b", b"a b", b"%61", b"\xff", "é".encode(), b"n\nl", b"-", b"..."])
PUTS = st.builds(
    Put,
    folders=st.lists(FEW, max_size=3).map(tuple),
    name=st.one_of(FEW, TAME),
    kind=st.sampled_from(["file", "file", "directory", "symlink", "hardlink", "fifo", "sparse", "remove"]),
    data=st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b"0")),
    mode=st.integers(0o400, 0o777),
    mtime=st.integers(-(10**18), 4 * 10**18),
)


def apply(tree: Path, put: Put) -> None:
    """Make the change, if what is there allows it."""
    folder = tree
    for name in put.folders:
        folder = folder / os.fsdecode(name)
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            return
        folder.mkdir(exist_ok=True)
    path = folder / os.fsdecode(put.name)
    if path.is_dir() and not path.is_symlink():
        if put.kind == "directory":
            path.chmod(put.mode | 0o700)
        return
    others = sorted(each for each in folder.iterdir() if each != path and not each.is_dir())
    if put.kind == "file" and path.is_file() and not path.is_symlink():
        path.chmod(0o600)
        path.write_bytes(put.data)  # in place: the file stays what it was
    else:
        path.unlink(missing_ok=True)
        if put.kind == "file":
            path.write_bytes(put.data)
        elif put.kind == "sparse":
            with path.open("wb") as file:
                file.seek(len(put.data) * 4096)
                file.write(put.data)
                file.truncate(len(put.data) * 9000)
        elif put.kind == "directory":
            path.mkdir()
        elif put.kind == "symlink":
            path.symlink_to(os.fsdecode(put.data or b"."))
        elif put.kind == "fifo":
            os.mkfifo(path)
        elif put.kind == "hardlink" and others:
            os.link(others[0], path, follow_symlinks=False)
    if os.path.lexists(path) and put.kind != "hardlink":
        if not stat.S_ISLNK(path.lstat().st_mode):
            path.chmod(put.mode)
        os.utime(path, ns=(0, put.mtime), follow_symlinks=False)


async def restore(place: Path, target: Path) -> None:
    """What a broker does with a prepared moment, without the repository in between."""
    target.mkdir()
    with Restorer(target, notes=place / "notes") as restorer:
        async with aclosing(entries(place / "entries", place / "content", check=lambda: None)) as listed:
            async for entry in listed:
                assert isinstance(entry, tuple), "there is no copy before, and nobody reads the content file"
                key, metadata, size, blocks = entry
                data = b"".join([block async for block in blocks])
                restorer.add([(EntryBegin(key, size, dict(metadata)), data)])
        restorer.complete()


def survey(tree: Path, place: Path, name: str, *, earlier: Earlier, trusted_ns: int, begin: int) -> tuple[Survey, int]:
    stop = Stop()
    with Content(place / "content", begin=begin, clones=clones(place), stop=stop) as content:
        found = Survey(tree, content=content, earlier=earlier, trusted_ns=trusted_ns, stop=stop)
        write_inventory(place / name, found.entries())
    return found, content.end


@settings(max_examples=60, deadline=None)
@given(before=st.lists(PUTS, max_size=25), after=st.lists(PUTS, max_size=12), old=st.booleans())
@example(before=[Put((), b"a", "file", b"1", 0o600, 0)], after=[Put((), b"a", "file", b"2", 0o600, 0)], old=True)
def test_a_moment_is_what_the_tree_was_whatever_was_staged(before: list[Put], after: list[Put], old: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place, tree = Path(directory), Path(directory, "tree")
        tree.mkdir()
        for put in before:
            apply(tree, put)
        # `old` trusts all that was staged, as if it had been written long before: signatures alone must notice
        trusted = 1 << 62 if old else 0
        _wait_for_the_clock(place / "clock", past=max(_ctimes(tree)))
        _, end = survey(tree, place, "staged", earlier=Earlier(iter(())), trusted_ns=0, begin=0)
        staged = Earlier(read_inventory(place / "staged"))
        unchanged, _ = survey(tree, place, "unchanged", earlier=staged, trusted_ns=trusted, begin=end)
        assert unchanged.reused == (len(_files(look(tree))) if old else 0)
        for put in after:
            apply(tree, put)
        os.utime(tree, ns=(OLD_NS, OLD_NS))
        expected = look(tree)
        earlier = Earlier(read_inventory(place / "staged"))
        moment, _ = survey(tree, place, "entries", earlier=earlier, trusted_ns=trusted, begin=end)
        assert not moment.changed
        asyncio.run(restore(place, place / "restored"))
        assert look(place / "restored") == expected


def _files(found: dict[bytes, Seen]) -> set[bytes]:
    """Regular files, those with several names once."""
    return {seen.group for seen in found.values() if seen.kind == stat.S_IFREG}


def _wait_for_the_clock(file: Path, *, past: int) -> None:
    """Poll until what is written gets a later time: the file system's clock ticks coarsely."""
    file.touch()
    while file.stat().st_ctime_ns <= past:
        file.write_bytes(b"")
    file.unlink()


def _ctimes(tree: Path) -> list[int]:
    return [path.lstat().st_ctime_ns for path in (tree, *tree.rglob("*"))]


@given(st.lists(TAME, max_size=6).map(tuple))
@example((b"%41",))
@example((b"\xed\xa0\x80",))
def test_a_path_has_one_key_and_a_key_one_path(parts: tuple[bytes, ...]) -> None:
    key = key_of(parts)
    assert key.isprintable()
    assert key.encode("utf-8")
    assert parts_of(key) == parts
    assert (key == ROOT_KEY) == (parts == ())


@given(st.binary())
def test_any_bytes_are_text(raw: bytes) -> None:
    assert decode(encode(raw)) == raw


@given(st.lists(st.tuples(st.lists(FEW, min_size=1, max_size=4).map(tuple), st.booleans()), unique=True))
def test_parents_stand_before_what_they_hold(found: list[tuple[tuple[bytes, ...], bool]]) -> None:
    for parts, is_directory in found:
        order = order_of(parts, is_directory=is_directory)
        for length in range(len(parts)):
            assert order_of(parts[:length], is_directory=True) < order
