"""Turns the chunks of one open copy into packs in the store: name, look up, compress, encrypt and upload, in threads.

Memory: one pack per open copy that is being filled, and the repository's packs that are on their way.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brokers.repository.chunking import MAX_BYTES
from brokers.repository.compression import compress
from brokers.repository.errors import Conflict, CorruptChunk, StorageFailed
from brokers.repository.format1 import packs
from brokers.repository.format1.catalog import Catalog, Place
from brokers.repository.format1.holds import Holds, new_serial
from brokers.repository.format1.index import put_index
from brokers.repository.format1.packs import Blob
from brokers.repository.format1.sealing import TAG_BYTES, Keys
from brokers.repository.manifest import ChunkRef
from brokers.repository.objects import ObjectStore
from brokers.sdk.digests import Buffer

UPLOADS = 2
SMALL_BYTES = 128 << 10
BATCH_BYTES = 1 << 20
BATCH_CHUNKS = 256
"""Chunks go to another thread together: up to so many bytes, and so many chunks."""
SLACK_BYTES = 64 << 10
"""What compression may add to chunks that can't be compressed, and the trailer of a pack."""
PACK_SECONDS = 10.0
"""A pack is not filled for longer than this: what a crash loses on a slow link is what came since."""
INDEXED_PACKS = 16
"""After how many packs an index object is written, so that a crash costs no more than reading their trailers."""


class Workers:
    """The threads of one repository: some for chunks, some for packs on their way."""

    def __init__(self) -> None:
        self.chunks = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="chunks")
        self.uploads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="packs")
        self.on_their_way = threading.BoundedSemaphore(UPLOADS + 1)
        self._buffers: list[bytearray] = []

    def buffer(self, size: int) -> bytearray:
        """Where a pack is gathered. Used ones come again: memory that was never touched costs more than the copying."""
        try:
            return self._buffers.pop()
        except IndexError:
            return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        if len(self._buffers) <= UPLOADS:
            self._buffers.append(buffer)

    def close(self) -> None:
        self.chunks.shutdown(cancel_futures=True)
        self.uploads.shutdown(cancel_futures=True)


class _Pack:
    """A pack that is being filled."""

    def __init__(self, pack: bytes, cipher: AESGCM, buffer: bytearray) -> None:
        """`buffer` is where its bytes are gathered."""
        self.id = pack
        self.cipher = cipher
        self.buffer = buffer
        self.size = packs.HEAD_BYTES
        self.begun = time.monotonic()
        self.blobs: list[Blob] = []
        self.filling = 0
        self.closed = False
        self.broken: BaseException | None = None
        self._beyond: list[tuple[int, bytearray]] = []

    def encrypt(self, blob: Blob, packed: Buffer) -> None:
        """Puts the bytes of one blob where they belong. Each has a place of its own: threads may do so at once."""
        end = blob.offset + blob.stored
        if end <= len(self.buffer):
            with memoryview(self.buffer)[blob.offset : end] as place:
                packs.encrypt_chunk_into(self.cipher, self.id, blob, packed, place)
        else:
            # The buffer can't grow while others write to it.
            beyond = bytearray(blob.stored)
            packs.encrypt_chunk_into(self.cipher, self.id, blob, packed, beyond)
            self._beyond.append((blob.offset, beyond))

    def _place(self, offset: int, piece: Buffer) -> None:
        end = offset + len(piece)
        if end > len(self.buffer):
            self.buffer.extend(bytes(end - len(self.buffer)))
        self.buffer[offset:end] = piece

    def body(self) -> memoryview:
        """The whole object, once all blobs are in it."""
        self.blobs.sort(key=lambda blob: blob.offset)
        for offset, piece in self._beyond:
            self._place(offset, piece)
        self._place(0, packs.head_of(self.id))
        trailer = packs.trailer(self.cipher, self.id, self.blobs)
        self._place(self.size, trailer)
        return memoryview(self.buffer)[: self.size + len(trailer)]


class _Batch:
    """Chunks on their way together."""

    __slots__ = ("future", "plains", "size")

    def __init__(self) -> None:
        self.plains: list[bytes | memoryview] = []
        self.size = 0
        self.future: Future[list[ChunkRef]] | None = None


class Uploads:
    """The chunks of one open copy (`brokers.repository.partwriter.ChunkSink`). Connections may share it."""

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        catalog: Catalog,
        holds: Holds,
        workers: Workers,
        *,
        pack_bytes: int,
        stored: Callable[[bytes], bytes],
    ) -> None:
        """`stored` reads a chunk as it lies in the repository, one zstd frame; it raises CorruptChunk."""
        self._stored = stored
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._holds = holds
        self._workers = workers
        self._pack_bytes = pack_bytes
        self._lock = threading.Condition()
        self._current: _Pack | None = None
        self._batch: _Batch | None = None
        self._batching = threading.Lock()
        self._claimed: dict[bytes, _Pack] = {}
        self._outstanding: set[_Pack] = set()
        self._unindexed: list[tuple[bytes, int, list[Blob]]] = []
        self._failure: BaseException | None = None
        self._stopped = False
        self.failures = 0
        """Counts packs that could not be stored: whoever began before one failed has to begin anew."""
        self.made: set[bytes] = set()
        """The packs that this copy added."""

    def put(self, plain: memoryview) -> Callable[[], ChunkRef]:
        # A small one would keep all alive that it was cut from.
        kept = plain if len(plain) >= SMALL_BYTES else bytes(plain)
        with self._batching:
            batch = self._batch
            if batch is None:
                batch = self._batch = _Batch()
            at = len(batch.plains)
            batch.plains.append(kept)
            batch.size += len(plain)
            if batch.size >= BATCH_BYTES or at + 1 >= BATCH_CHUNKS:
                self._hand_over(batch)
        return functools.partial(self._ref, batch, at)

    def put_all(self, plains: Sequence[memoryview]) -> Callable[[], Sequence[ChunkRef]]:
        future: Future[list[ChunkRef]] = self._workers.chunks.submit(self._store_all, plains)
        return future.result

    def _ref(self, batch: _Batch, at: int) -> ChunkRef:
        if batch.future is None:
            with self._batching:
                if batch.future is None:
                    self._hand_over(batch)
        assert batch.future is not None
        return batch.future.result()[at]

    def _hand_over(self, batch: _Batch) -> None:
        """No more comes into the batch. Holds the lock of batches."""
        if self._batch is batch:
            self._batch = None
        batch.future = self._workers.chunks.submit(self._store_batch, batch)

    def knows(self, name: bytes, *, size: int) -> bool:
        """Whether the chunk needs no writing."""
        if name in self._claimed:
            return True
        return self._usable(self._catalog.places(name), size=size)

    def lost(self, refs: Sequence[ChunkRef]) -> ChunkRef | None:
        """Takes chunks that lie in the repository; the first one that doesn't. Those in packs that are about to be
        deleted are written anew."""
        names = [bytes.fromhex(ref.digest) for ref in refs]
        places = self._catalog.places_of(set(names))
        good: set[bytes] = set()
        for ref, name in zip(refs, names, strict=True):
            there = places.get(name, ())
            if len(there) == 1 and there[0].pack in good and there[0].blob.size == ref.size:
                continue
            if name in self._claimed or self._usable(there, size=ref.size):
                good.update(place.pack for place in there if self._holds.relied_on(place.pack))
                continue
            try:
                self.keep(name, self._stored(name), size=ref.size)
            except CorruptChunk:
                return ref
        return None

    def keep(self, name: bytes, packed: Buffer, *, size: int) -> None:
        """Adds a compressed chunk from elsewhere, checked. Raises CorruptChunk."""
        packs.open_chunk(self._keys, packed, name=name, size=size)
        self._add(name, packed, size=size)

    def _store_batch(self, batch: _Batch) -> list[ChunkRef]:
        stored = self._store_all(batch.plains)
        # Whoever asks for the names may come late; what they were cut from is to be used again.
        batch.plains.clear()
        return stored

    def _store_all(self, plains: Sequence[Buffer]) -> list[ChunkRef]:
        names = [self._keys.chunk_name(plain) for plain in plains]
        places = self._catalog.places_of(set(names))
        for name, plain in zip(names, plains, strict=True):
            if name in self._claimed:
                continue
            known = places.get(name)
            if not known or not self._usable(known, size=len(plain)):
                self._add(name, compress(plain), size=len(plain))
        return [ChunkRef(name.hex(), len(plain)) for name, plain in zip(names, plains, strict=True)]

    def _usable(self, places: Iterable[Place], *, size: int) -> bool:
        return any(place.blob.size == size and self._holds.rely(place.pack) for place in places)

    def _add(self, name: bytes, packed: Buffer, *, size: int) -> None:
        stored = len(packed) + TAG_BYTES
        with self._lock:
            if self._stopped:
                raise Conflict("was aborted")
            if name in self._claimed:
                return
            pack = self._current
            if pack is None:
                made = self._holds.new_pack()
                buffer = self._workers.buffer(self._pack_bytes + MAX_BYTES + SLACK_BYTES)
                pack = self._current = _Pack(made, self._keys.pack_cipher(made), buffer)
                self._outstanding.add(pack)
            blob = Blob(name, pack.size, stored, size)
            pack.size += stored
            pack.filling += 1
            self._claimed[name] = pack
            if pack.size >= self._pack_bytes or time.monotonic() - pack.begun > PACK_SECONDS:
                pack.closed = True
                self._current = None
        try:
            pack.encrypt(blob, packed)
        except BaseException as error:
            pack.broken = error
            raise
        finally:
            with self._lock:
                pack.blobs.append(blob)
                pack.filling -= 1
                ready = self._take(pack)
            if ready:
                self._send(pack)

    def _take(self, pack: _Pack) -> bool:
        """Whether the pack is full and all in it, for the first one who asks. Holds the lock."""
        if pack.closed and pack.filling == 0:
            pack.closed = False
            return True
        return False

    def _send(self, pack: _Pack) -> None:
        self._workers.on_their_way.acquire()
        try:
            self._workers.uploads.submit(self._upload, pack)
        except BaseException as error:
            self._done(pack, error)
            raise

    def _upload(self, pack: _Pack) -> None:
        failure: BaseException | None = None
        try:
            if pack.broken is not None:
                raise pack.broken
            with pack.body() as body:
                self._holds.announce(pack.id)
                self._objects.put(packs.pack_name(pack.id), body)
                size = len(body)
            self._catalog.add_pack(pack.id, size, pack.blobs)
            self._note(pack, size)
        except BaseException as error:
            failure = error
        finally:
            self._done(pack, failure)

    def _done(self, pack: _Pack, failure: BaseException | None) -> None:
        if failure is None:
            # Else whoever was to store it may still have it in hand.
            self._workers.give_back(pack.buffer)
        self._workers.on_their_way.release()
        with self._lock:
            if failure is not None:
                self._failure = failure
                self.failures += 1
            for blob in pack.blobs:
                self._claimed.pop(blob.name, None)
            self._outstanding.discard(pack)
            self._lock.notify_all()

    def _note(self, pack: _Pack, size: int) -> None:
        with self._lock:
            self.made.add(pack.id)
            self._unindexed.append((pack.id, size, pack.blobs))
            due = self._take_unindexed() if len(self._unindexed) >= INDEXED_PACKS else []
        self._index(due)

    def _take_unindexed(self) -> list[tuple[bytes, int, list[Blob]]]:
        found, self._unindexed = self._unindexed, []
        return found

    def _index(self, due: list[tuple[bytes, int, list[Blob]]]) -> None:
        if due:
            name = put_index(self._objects, self._keys, due, serial=new_serial())
            self._catalog.note_loaded(name, [pack for pack, _, _ in due])

    def stop(self) -> None:
        """Takes no more chunks: the copy is aborted."""
        with self._lock:
            self._stopped = True

    def flush(self, *, since: int) -> None:
        """Waits until every chunk taken so far lies in the store, and its index too. Whoever waits has called all the
        answers of `put` before. Raises what went wrong with a pack since the count of failures was `since`."""
        with self._lock:
            pack, self._current = self._current, None
            if pack is not None:
                pack.closed = True
            ready = pack is not None and self._take(pack)
            awaited = set(self._outstanding)
        if pack is not None and ready:
            self._send(pack)
        with self._lock:
            self._lock.wait_for(lambda: not awaited & self._outstanding)
            failed, failure = self.failures > since, self._failure
            due = [] if failed else self._take_unindexed()
        if failed:
            raise failure or StorageFailed("a pack could not be stored")
        self._index(due)
