"""Every change of a store is judged when it is made, by an eye of its own: packs and commit objects are decoded as
`docs/repository-format.md` says, without the catalog, the reader and the collector of the product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import msgspec

from brokers.repository.compression import decompress_any
from brokers.repository.errors import RepositoryError
from brokers.repository.format1.commits import COPIES, Commit
from brokers.repository.format1.holds import MARKS
from brokers.repository.format1.packs import PACKS, decrypt_chunk, open_chunk, read_trailer
from brokers.repository.format1.sealing import Keys
from brokers.repository.manifest import ChunkRef, IndexEntry, Part, parse
from tests.unit.repository.memory_store import MemoryObjects, MemoryStore

Content = bytes | Mapping[str, bytes]
"""What a part holds: a stream, or entries by key."""


class Watch:
    """Is told of every put and delete once it is done."""

    def __init__(self, content: Callable[[str, str], Content]) -> None:
        """`content` says what a part (copy, name) holds: nothing else may ever be committed."""
        self.keys: Keys | None = None
        self.broken: list[str] = []
        self.commits: dict[str, Commit] = {}
        self.packs: set[str] = set()
        self.marks: set[str] = set()
        self.others: set[str] = set()
        self.deleted_packs = 0
        self.taken_back: set[str] = set()
        """Copies that are just now taken back by the operation that committed them."""
        self.excused: Callable[[str], bool] = lambda _copy: False
        """Whether a copy may be broken: whoever wrote it slept for longer than a hold lasts."""
        self._content = content
        self._chunks: dict[str, dict[bytes, bytes]] = {}

    def put(self, name: str, body: bytes) -> set[bytes]:
        """The object is there now; the names of the chunks that it brought."""
        if self.keys is None:
            return set()
        kind, _, rest = name.partition("/")
        if kind + "/" == PACKS:
            self._chunks[rest] = self._opened(self.keys, rest, body)
            self.packs.add(rest)
            return set(self._chunks[rest])
        if kind + "/" == COPIES:
            commit = msgspec.json.decode(decompress_any(self.keys.unseal(name, body)), type=Commit)
            self.commits[name] = commit
            self._judge(name, "when it was committed")
            self._judge_content(name, commit)
        else:
            (self.marks if kind + "/" == MARKS else self.others).add(rest if kind + "/" == MARKS else name)
        return set()

    def deleting(self, name: str, *, now: float) -> None:
        """The object is about to be deleted: not the last commit object of a copy that is locked, unless by who
        committed it."""
        commit = self.commits.get(name)
        copy = copy_of(name)
        if commit is None or not commit.keep_until or copy in self.taken_back or name not in self.counting():
            return
        others = [each for each in self.counting() if copy_of(each) == copy and each != name]
        if datetime.fromisoformat(commit.keep_until).timestamp() > now and not others:
            self.broken.append(f"{name} was deleted at {now}, and is locked until {commit.keep_until}")

    def deleted(self, name: str) -> None:
        """The object is gone now."""
        kind, _, rest = name.partition("/")
        self.commits.pop(name, None)
        self.others.discard(name)
        if kind + "/" == MARKS:
            self.marks.discard(rest)
        if kind + "/" == PACKS and rest in self.packs:
            self.packs.discard(rest)
            self.deleted_packs += 1
            for each in self.counting():
                self._judge(each, f"when {name} was deleted")

    def copies(self) -> set[str]:
        """The copies that are there."""
        return {copy_of(name) for name in self.counting()}

    def counting(self) -> dict[str, Commit]:
        """The commit objects that count: not those that took the place of one that was deleted."""
        return {
            name: commit
            for name, commit in self.commits.items()
            if not commit.origin or f"gone/{copy_of(name)}/{commit.origin}" not in self.others
        }

    def needed(self) -> set[str]:
        """The packs that committed copies need."""
        return {pack for commit in self.counting().values() for pack in commit.packs}

    def reliable(self, chunk: bytes) -> set[str]:
        """The packs that hold the chunk and that nobody means to delete."""
        return {pack for pack in self.packs - self.marks if chunk in self._chunks[pack]}

    def _opened(self, keys: Keys, pack: str, body: bytes) -> dict[bytes, bytes]:
        there = MemoryObjects()
        there.objects[PACKS + pack] = (body, 0.0)
        identity = bytes.fromhex(pack)
        cipher = keys.pack_cipher(identity)
        found: dict[bytes, bytes] = {}
        for blob in read_trailer(MemoryStore(there), keys, identity, size=len(body)):
            packed = decrypt_chunk(cipher, identity, blob, body[blob.offset : blob.offset + blob.stored])
            found[blob.name] = open_chunk(keys, packed, name=blob.name, size=blob.size)
        return found

    def _judge(self, name: str, when: str) -> None:
        for pack in self.commits[name].packs:
            if pack not in self.packs and not self.excused(copy_of(name)):
                self.broken.append(f"{name} lacked pack {pack} {when}")

    def _judge_content(self, name: str, commit: Commit) -> None:
        copy = copy_of(name)
        if self.excused(copy):
            return
        chunks: dict[bytes, bytes] = {}
        for pack in commit.packs:
            chunks.update(self._chunks.get(pack, {}))
        try:
            parse(commit.manifest, copy=copy)
            for part in commit.parts:
                if read_whole(part, chunks) != self._content(copy, part.name):
                    self.broken.append(f"{name}: part {part.name} is not what was written")
        except (KeyError, RepositoryError) as error:
            self.broken.append(f"{name} can't be read: {error!r}")


def copy_of(name: str) -> str:
    """The copy of a commit object."""
    return name.removeprefix(COPIES).partition("/")[0]


def read_whole(part: Part, chunks: Mapping[bytes, bytes]) -> Content:
    """The content of a part. Raises KeyError for a chunk that is nowhere."""

    def joined(refs: Iterable[ChunkRef]) -> bytes:
        return b"".join(chunks[bytes.fromhex(ref.digest)] for ref in refs)

    if part.index is None:
        return joined(part.chunks or ())
    lines = joined(part.index).splitlines()
    if part.is_entries:
        entries = [msgspec.json.decode(line, type=IndexEntry) for line in lines]
        return {entry.key: joined(entry.chunks) for entry in entries}
    return joined(msgspec.json.decode(line, type=ChunkRef) for line in lines)


def chunks_of(part: Part) -> set[bytes]:
    """The chunks that a part names itself: those of its index, or of its stream."""
    return {bytes.fromhex(ref.digest) for ref in part.index or part.chunks or ()}
