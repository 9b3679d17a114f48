"""Reads chunks from packs: several at once where they lie side by side, some ahead of who asks, each one checked."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from brokers.repository.errors import CorruptChunk
from brokers.repository.format1 import packs
from brokers.repository.format1.catalog import Catalog, Place
from brokers.repository.format1.sealing import Keys
from brokers.repository.manifest import ChunkRef, IndexEntry
from brokers.repository.objects import ObjectMissing, ObjectStore

BATCH_BYTES = 2 << 20
BATCH_ITEMS = 512
BATCHES_AHEAD = 4
READERS = 4
_GAP_BYTES = 64 << 10

Item = ChunkRef | IndexEntry | None
Read = bytes | IndexEntry | None


class Reader:
    """The chunks of one repository. Threads may share it."""

    def __init__(self, objects: ObjectStore, keys: Keys, catalog: Catalog, *, learn: Callable[[], object]) -> None:
        """`learn` brings the catalog up to date: another process may have moved what this one looks for."""
        self._learn = learn
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="reads")

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def source(self, copy: str, part: str, *, by_name: bool = True) -> PartSource:
        """The chunks of one part (`brokers.repository.partreader.ChunkSource`). Not ``by_name``: data that is authentic
        is not compared with its name too, for the caller sees to it that another digest over it is checked."""
        return PartSource(self, copy=copy, part=part, by_name=by_name)

    def chunk(self, ref: ChunkRef) -> bytes:
        """The plaintext of a chunk. Raises CorruptChunk."""
        name = bytes.fromhex(ref.digest)
        return packs.open_chunk(self._keys, self.packed(name), name=name, size=ref.size)

    def packed(self, name: bytes) -> bytes:
        """A chunk as one zstd frame, from the first of its places where it is whole. Raises CorruptChunk."""
        try:
            return self._packed(name)
        except CorruptChunk:
            self._learn()
            return self._packed(name)

    def _packed(self, name: bytes) -> bytes:
        problem = CorruptChunk("is missing", chunk=name.hex())
        for place in self._catalog.places(name):
            try:
                return self._decrypt(place, self._span(place.pack, place.blob.offset, place.blob.stored))
            except CorruptChunk as error:
                problem = error
        raise problem

    def damaged_places(self, ref: ChunkRef) -> list[bytes]:
        """The packs in which the chunk is said to be, and isn't whole."""
        name = bytes.fromhex(ref.digest)
        found: list[bytes] = []
        for place in self._catalog.places(name):
            try:
                packed = self._decrypt(place, self._span(place.pack, place.blob.offset, place.blob.stored))
                packs.open_chunk(self._keys, packed, name=name, size=ref.size)
            except CorruptChunk:
                found.append(place.pack)
        return found

    def ahead(self, items: Iterator[Item], *, by_name: bool) -> Iterator[Read]:
        """The items in order, with the plaintext in place of each chunk, compared with its name or not."""
        waiting: collections.deque[Future[list[Read]]] = collections.deque()
        try:
            for batch in _batches(items):
                waiting.append(self._threads.submit(self._read, batch, by_name=by_name))
                if len(waiting) > BATCHES_AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _read(self, batch: list[Item], *, by_name: bool) -> list[Read]:
        sizes = {bytes.fromhex(item.digest): item.size for item in batch if isinstance(item, ChunkRef)}
        plains = self._side_by_side(sizes, by_name=by_name)
        found: list[Read] = []
        for item in batch:
            if not isinstance(item, ChunkRef):
                found.append(item)
                continue
            plain = plains.get(bytes.fromhex(item.digest))
            if plain is None or len(plain) != item.size:
                # One by one, with every place that it has; and if it is damaged everywhere, that is what is said.
                plain = self.chunk(item)
            found.append(plain)
        return found

    def _side_by_side(self, sizes: Mapping[bytes, int], *, by_name: bool) -> dict[bytes, bytes]:
        """The plaintext of chunks, by one read for each run of neighbours; what can't be read is left out."""
        places = [places[0] for places in self._catalog.places_of(sizes).values()]
        places.sort(key=lambda place: (place.pack, place.blob.offset))
        found: dict[bytes, bytes] = {}
        for run in _runs(places):
            first, last = run[0].blob, run[-1].blob
            try:
                span = memoryview(self._span(run[0].pack, first.offset, last.offset + last.stored - first.offset))
            except CorruptChunk:
                continue
            for place in run:
                name, at = place.blob.name, place.blob.offset - first.offset
                try:
                    packed = self._decrypt(place, span[at : at + place.blob.stored])
                    plain = packs.unpack_chunk(packed, name=name, size=sizes[name])
                    if by_name:
                        packs.check_name(self._keys, plain, name=name)
                    found[name] = plain
                except CorruptChunk:
                    continue
        return found

    def _decrypt(self, place: Place, stored: bytes | memoryview) -> bytes:
        return packs.decrypt_chunk(self._keys.pack_cipher(place.pack), place.pack, place.blob, stored)

    def _span(self, pack: bytes, offset: int, length: int) -> bytes:
        try:
            return self._objects.read(packs.pack_name(pack), offset=offset, length=length)
        except ObjectMissing:
            raise CorruptChunk(f"is missing with its pack {pack.hex()}") from None


class PartSource:
    """Reads for one part, so that errors name it."""

    def __init__(self, reader: Reader, *, copy: str, part: str, by_name: bool) -> None:
        self._reader = reader
        self._by_name = by_name
        self._copy = copy
        self._part = part

    def one(self, ref: ChunkRef) -> bytes:
        try:
            return self._reader.chunk(ref)
        except CorruptChunk as error:
            raise self._named(error) from error

    def all(self, items: Iterator[Item]) -> Iterator[Read]:
        try:
            yield from self._reader.ahead(items, by_name=self._by_name)
        except CorruptChunk as error:
            raise self._named(error) from error

    def _named(self, error: CorruptChunk) -> CorruptChunk:
        if error.copy is not None:
            return error
        return CorruptChunk(error.cause, copy=self._copy, part=self._part, chunk=error.chunk)


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.size if isinstance(item, ChunkRef) else 0
        if size >= BATCH_BYTES or len(batch) >= BATCH_ITEMS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _runs(places: list[Place]) -> Iterator[list[Place]]:
    run: list[Place] = []
    for place in places:
        if run and (
            place.pack != run[-1].pack or place.blob.offset - (run[-1].blob.offset + run[-1].blob.stored) > _GAP_BYTES
        ):
            yield run
            run = []
        run.append(place)
    if run:
        yield run
