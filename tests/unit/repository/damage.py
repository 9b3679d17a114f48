"""A repository of format 1 with some of each kind of object, the pieces that each kind consists of, and what can
happen to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from brokers.repository.format1.kinds import Kind, kind_of
from brokers.repository.format1.packs import FOOT_BYTES, HEAD_BYTES
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from schemas.values import ImageContent
from tests.unit.repository.copies import write_entries, write_part
from tests.unit.repository.memory_store import MemoryObjects, MemoryStore

RANDOM = random.Random(2)
DUMPS = {"c1": RANDOM.randbytes(90_000), "c2": RANDOM.randbytes(50_000)}
ENTRIES = [(f"key {at}", {"n": str(at)}, RANDOM.randbytes(at * 10)) for at in range(12)]
IMAGES = {name: ImageContent(image=name, site="north", level="crash", instances=()) for name in ("m1", "m2")}
PACK_BYTES = 60_000

Objects = Mapping[str, bytes]
Span = tuple[int, int]


class Written(NamedTuple):
    """What lies in the store, and those of its packs that committed copies need."""

    objects: dict[str, bytes]
    needed: frozenset[str]


class Damaged(NamedTuple):
    """What the store holds instead; `what` was done to which object."""

    kind: Kind
    name: str
    what: str
    objects: dict[str, bytes]


def store_of(objects: Objects) -> MemoryObjects:
    there = MemoryObjects()
    there.objects = {name: (content, there.clock) for name, content in objects.items()}
    return there


def opened(directory: Path, there: MemoryObjects, *, state: str, recipients: tuple[str, ...] = ()) -> Repository:
    options = Options(recipient_key=directory / "recipient.key", pack_bytes=PACK_BYTES, recipients=recipients)
    return Repository.open(MemoryStore(there), state=directory / state, options=options)


def written(directory: Path, *, friend: str) -> Written:
    """Two committed copies, two images, an open copy with its holds, a mark, what tells of deleted copies, two
    recipients."""
    there = MemoryObjects()
    with opened(directory, there, state="writer", recipients=(friend,)) as repository:
        for copy, dump in DUMPS.items():
            opened_copy = repository.open_write(copy, CopyInfo())
            write_part(opened_copy, "dump", dump)
            write_entries(opened_copy, "entries", ENTRIES)
            repository.commit(copy)
        for image in IMAGES.values():
            repository.record_image(image)
        needed = frozenset(name for name in there.objects if kind_of(name) is Kind.PACK)
        for number in range(2):
            write_part(repository.open_write(f"open{number}", CopyInfo()), "dump", RANDOM.randbytes(30_000))
        # As collectors leave them that have seen two packs before they were needed.
        packs = sorted(name for name in there.objects if kind_of(name) is Kind.PACK)
        for pack in packs[:2]:
            there.objects[pack.replace(Kind.PACK.value, Kind.MARK.value)] = (b"doomed\n", there.clock)
        for number in range(2):
            there.objects[f"{Kind.GONE.value}deleted{number}/0123456789abcdef0123"] = (b"gone\n", there.clock)
    return Written({name: content for name, (content, _) in there.objects.items()}, needed)


def _sealed(content: bytes) -> dict[str, Span]:
    return {"magic": (0, 4), "salt": (4, 20), "ciphertext": (20, len(content) - 16), "tag": (-16, 0)}


def _recipient(content: bytes) -> dict[str, Span]:
    return {"magic": (0, 4), "ephemeral key": (4, 36), "ciphertext": (36, len(content) - 16), "tag": (-16, 0)}


def _format(content: bytes) -> dict[str, Span]:
    id_at = content.index(b'"id"')
    return {"format": (0, id_at - 1), "id": (id_at + 6, len(content) - 2), "end": (-2, 0)}


def _pack(content: bytes) -> dict[str, Span]:
    size = len(content)
    foot = size - FOOT_BYTES
    trailer = foot - int.from_bytes(content[foot : foot + 4], "big")
    return {
        "magic": (0, 8),
        "pack id": (8, HEAD_BYTES),
        "first blob": (HEAD_BYTES, HEAD_BYTES + 16),
        "blobs": (HEAD_BYTES + 16, trailer - 16),
        "tag of the last blob": (trailer - 16, trailer),
        "trailer": (trailer, foot - 16),
        "tag of the trailer": (foot - 16, foot),
        "length of the trailer": (foot, foot + 4),
        "end": (foot + 4, size),
    }


def _mark(content: bytes) -> dict[str, Span]:
    return {"all": (0, len(content))}


PIECES: dict[Kind, Callable[[bytes], dict[str, Span]]] = {
    Kind.FORMAT: _format,
    Kind.RECIPIENT: _recipient,
    Kind.PACK: _pack,
    Kind.INDEX: _sealed,
    Kind.COMMIT: _sealed,
    Kind.IMAGE: _sealed,
    Kind.HOLD: _sealed,
    Kind.MARK: _mark,
    Kind.GONE: _mark,
}
"""The pieces of each kind's objects, as the format names them: each begins where another ends."""


def pieces_of(kind: Kind, content: bytes) -> dict[str, Span]:
    """Each piece with its first byte and the one behind its last."""
    size = len(content)
    return {
        name: (begin % size if begin < 0 else begin, end or size)
        for name, (begin, end) in PIECES[kind](content).items()
    }


def flips(objects: Objects, name: str) -> Iterator[Damaged]:
    """A bit of the first, the last and some other byte of each piece."""
    kind, content = _kind(name), objects[name]
    for piece, (begin, end) in pieces_of(kind, content).items():
        for at in sorted({begin, end - 1, RANDOM.randrange(begin, end)}):
            changed = bytearray(content)
            changed[at] ^= 1 << RANDOM.randrange(8)
            yield Damaged(kind, name, f"a flipped bit in its {piece}, byte {at}", {**objects, name: bytes(changed)})


def cuts(objects: Objects, name: str) -> Iterator[Damaged]:
    """The object ends at the beginning or in the middle of each piece; or it goes on behind its end."""
    kind, content = _kind(name), objects[name]
    places = {at for begin, end in pieces_of(kind, content).values() for at in (begin, (begin + end) // 2)}
    for at in sorted(places):
        yield Damaged(kind, name, f"cut after {at} bytes", {**objects, name: content[:at]})
    yield Damaged(kind, name, "a byte more", {**objects, name: content + b"\0"})


def losses(objects: Objects, name: str) -> Iterator[Damaged]:
    yield Damaged(_kind(name), name, "gone", {each: objects[each] for each in objects if each != name})


def swaps(objects: Objects, name: str, foreign: Objects) -> Iterator[Damaged]:
    """Another object of its kind in its place: of this repository, and of one with other keys."""
    kind = _kind(name)
    others = [objects[each] for each in sorted(objects) if _kind(each) is kind and each != name]
    if others:
        yield Damaged(kind, name, "another one in its place", {**objects, name: others[-1]})
    strange = next(foreign[each] for each in sorted(foreign) if _kind(each) is kind)
    yield Damaged(kind, name, "one of another repository in its place", {**objects, name: strange})


def everything(objects: Objects, foreign: Objects) -> Iterator[Damaged]:
    """All damages of two objects of each kind. Where nothing would be changed, there is none."""
    for kind in Kind:
        names = sorted(each for each in objects if _kind(each) is kind)[:2]
        first = max(names, key=lambda each: len(objects[each]))
        for name in names:
            pieces = (*flips(objects, name), *cuts(objects, name)) if name == first or kind is Kind.RECIPIENT else ()
            for damaged in (*pieces, *losses(objects, name), *swaps(objects, name, foreign)):
                if damaged.objects != objects:
                    yield damaged


def _kind(name: str) -> Kind:
    kind = kind_of(name)
    assert kind is not None, name
    return kind
