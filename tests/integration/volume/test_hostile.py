"""Copies that say what no copy of ours says: refused, and nothing is ever written outside the tree."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from brokers.sdk.copystream import CopyWriter
from brokers.sdk.frames import EntryBegin
from brokers.volume.paths import WrongCopy
from brokers.volume.restoring import Restorer
from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.volume.services import Volume
from tests.integration.volume.trees import look

Hostile = list[tuple[str, Mapping[str, str], bytes]]
_PLAIN = {"mode": "0644", "uid": "0", "gid": "0", "mtime": "0"}
_FILE, _LINK = {**_PLAIN, "type": "file"}, {**_PLAIN, "type": "symlink"}
_ROOT = (".", {**_PLAIN, "type": "directory", "mode": "0755"}, b"")
HOSTILE: list[Hostile] = [
    [_ROOT, ("../escaped", _FILE, b"1")],
    [_ROOT, ("a/../../escaped", _FILE, b"1")],
    [_ROOT, ("%2E%2E/escaped", _FILE, b"1")],
    [_ROOT, ("..%2Fescaped", _FILE, b"1")],
    [_ROOT, ("{outside}/escaped", _FILE, b"1")],
    [_ROOT, ("out", {**_LINK, "target": "{outside}"}, b""), ("out/escaped", _FILE, b"1")],
    [_ROOT, ("out", {**_LINK, "target": "{outside}/escaped"}, b""), ("out", _FILE, b"1")],
    [_ROOT, ("out", {**_LINK, "target": "{outside}"}, b""), ("out", {**_PLAIN, "type": "directory"}, b"")],
    [_ROOT, ("out", {**_LINK, "target": "{outside}"}, b""), ("out/d", {**_PLAIN, "type": "directory"}, b"")],
    [_ROOT, ("stolen", {"type": "hardlink", "target": "../../../secret"}, b"")],
    [_ROOT, ("stolen", {"type": "hardlink", "target": "{outside}/secret"}, b"")],
    [
        _ROOT,
        ("out", {**_LINK, "target": "{outside}"}, b""),
        ("stolen", {"type": "hardlink", "target": "out/secret"}, b""),
    ],
    [_ROOT, ("stolen", {"type": "hardlink", "target": "."}, b"")],
    [_ROOT, ("nul%00", _FILE, b"1")],
    [_ROOT, ("", _FILE, b"1")],
    [_ROOT, ("a//b", _FILE, b"1")],
    [_ROOT, ("no/parent", _FILE, b"1")],
    [_ROOT, ("twice", _FILE, b"1"), ("twice", _FILE, b"2")],
    [_ROOT, ("device", {**_PLAIN, "type": "device"}, b"")],
    [_ROOT, (".", _FILE, b"1")],
    [_ROOT, ("long" * 100, _FILE, b"1")],
    [_ROOT, ("f", {**_FILE, "mode": "99"}, b"1")],
    [_ROOT, ("f", {**_FILE, "uid": "-1"}, b"1")],
    [_ROOT, ("f", {**_FILE, "mtime": "now"}, b"1")],
    [_ROOT, ("f", {**_FILE, "xattr.security.capability": "AA=="}, b"1")],
    [_ROOT, ("f", {**_FILE, "xattr.user.x": "?"}, b"1")],
    [_ROOT, ("f", {**_FILE, "size": "10", "segments": "0+5,3+5"}, b"0123456789")],
    [_ROOT, ("f", {**_FILE, "size": "10", "segments": "0+100"}, b"1")],
    [_ROOT, ("f", {**_FILE, "size": "10", "segments": "-4+1"}, b"1")],
    [_ROOT, ("f", {**_LINK, "target": "x"}, b"data")],
]


@pytest.mark.parametrize("entries", HOSTILE)
def test_a_hostile_copy_is_refused_and_writes_nowhere_else(tmp_path: Path, entries: Hostile) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "volumes" / "making" / "tree"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "secret").write_bytes(b"secret")
    tree.mkdir(parents=True)
    before = look(outside)
    heads = [(EntryBegin(key, len(data), dict(metadata)), data) for key, metadata, data in _filled(entries, outside)]
    with pytest.raises(WrongCopy, match=r"^entry '"):
        _restore(tree, heads, notes=tmp_path / "notes")
    assert look(outside) == before
    assert not list(tmp_path.rglob("escaped"))
    assert not [path for path in tree.rglob("*") if not path.is_symlink() and path.read_bytes() == b"secret"]
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "secret", "volumes"}


@pytest.mark.parametrize("entries", HOSTILE[::6])
async def test_a_provision_from_a_hostile_copy_fails_and_leaves_nothing(
    broker: Volume, repository: Site, tmp_path: Path, entries: Hostile
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    before, trees = look(outside), _names(broker)
    copy = f"copy-{new_id()}"

    async def source() -> AsyncIterator[tuple[str, Mapping[str, str], int, AsyncIterator[bytes]]]:
        for key, metadata, data in _filled(entries, outside):
            yield key, metadata, len(data), _one(data)

    await CopyWriter(repository.open_write(copy)).write_entries("tree", source())
    repository.repository.commit(copy)
    problem = await broker.fails("provision", broker.provision_request(copy, restore=repository.open_read(copy)))
    assert (problem.code, problem.temporary) == ("wrong_copy", False)
    assert await broker.describe(copy) == ()
    assert look(outside) == before
    assert _names(broker) == trees


def _restore(tree: Path, entries: list[tuple[EntryBegin, bytes]], *, notes: Path) -> None:
    with Restorer(tree, notes=notes) as restorer:
        restorer.add(entries)
        restorer.complete()


def _filled(entries: Hostile, outside: Path) -> Hostile:
    return [
        (
            key.replace("{outside}", str(outside)),
            {name: value.replace("{outside}", str(outside)) for name, value in metadata.items()},
            data,
        )
        for key, metadata, data in entries
    ]


async def _one(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


def _names(broker: Volume) -> set[Path]:
    """What there is above the trees, where an entry that escapes would land."""
    return {
        path
        for place in (broker.volumes, *broker.volumes.iterdir())
        for path in place.iterdir()
        if path.suffix != ".json"
    }
