"""The walk of a stage that goes straight into the repository: files are read into a ring."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from brokers.volume.attributes import SEEN, seen, sparse
from brokers.volume.inventory import Earlier, Entry, signature_of
from brokers.volume.linux import BLOCK_BYTES, Segment, data_segments
from brokers.volume.ring import Piece, Ring, Taken
from brokers.volume.survey import AHEAD, BATCH_BYTES, THREADS, Found, Leaf, OpenedDirectory, Room, Walk, known_of
from brokers.volume.threads import Stop

PIECE_BYTES = 4 << 20


class AheadSurvey(Walk):
    """A walk whose files are read into a ring. Each is read once: one that is written to meanwhile has another
    signature than its entry when the moment is fixed."""

    def __init__(
        self, tree: Path, *, ring: Ring, earlier: Earlier, trusted_ns: int, stop: Stop, settled_ns: int, boot: str
    ) -> None:
        super().__init__(tree, earlier=earlier, trusted_ns=trusted_ns, stop=stop, settled_ns=settled_ns, boot=boot)
        self._ring = ring

    def taken(self) -> Generator[Taken | Entry | Piece, None, None]:
        """The entries of the tree, in the order of an inventory: an entry by itself is that of a big file, and its
        pieces follow. The next is asked for before the repository is through with the one before."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ahead")
        waiting: deque[Future[Taken]] = deque()
        try:
            for opened, found in self._found():
                small: Found = []
                for each in found:
                    if isinstance(each, Entry) or each[2].st_size <= BATCH_BYTES:
                        small.append(each)
                        continue
                    yield from self._begin(threads, waiting, opened, small)
                    small = []
                    while waiting:
                        yield waiting.popleft().result()
                    yield from self._big(opened, each)
                yield from self._begin(threads, waiting, opened, small)
                while len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            self._over = True
            threads.shutdown()

    def _begin(
        self, threads: ThreadPoolExecutor, waiting: deque[Future[Taken]], opened: OpenedDirectory, found: Found
    ) -> Generator[Taken, None, None]:
        """Have them read, when there is room."""
        if not found:
            return
        size = sum(each[2].st_size for each in found if not isinstance(each, Entry))
        while (got := self._ring.room(size)) is None:
            if waiting:
                yield waiting.popleft().result()
            else:
                self._ring.wait(self._stop)
        if any(not isinstance(each, Entry) for each in found):
            opened.use()
            waiting.append(threads.submit(self._read_all, opened, found, *got))
        else:
            done: Future[Taken] = Future()
            done.set_result(Taken([each for each in found if isinstance(each, Entry)], got[1]))
            waiting.append(done)

    def _read_all(self, opened: OpenedDirectory, found: Found, room: Room, taken: int) -> Taken:
        """In a thread."""
        try:
            entries: list[Entry] = []
            for each in () if self._over else found:
                if isinstance(each, Entry):
                    entries.append(each)
                elif (entry := self._read_one(opened, each, room)) is not None:
                    entries.append(entry)
            return Taken(entries, taken)
        finally:
            self._leave(opened)

    def _read_one(self, opened: OpenedDirectory, leaf: Leaf, room: Room) -> Entry | None:
        name, _, info = leaf
        self._stop.check()
        file = _open(opened, name)
        if file < 0:
            return None
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                return None
            segments = data_segments(file, before)
            # One that grew since has no room: it is another one already.
            whole = sum(length for _, length in segments) <= info.st_size
            pieces = tuple(self._fill(file, each, room) for each in segments) if whole else ()
            return self._entry(opened, leaf, before, file, segments if whole else [], pieces=pieces, whole=whole)
        finally:
            os.close(file)

    def _entry(
        self,
        opened: OpenedDirectory,
        leaf: Leaf,
        before: os.stat_result,
        file: int,
        segments: list[Segment],
        *,
        pieces: tuple[Segment, ...],
        whole: bool,
    ) -> Entry:
        name, key, _ = leaf
        metadata = known_of(before, "file", file, (*opened.parts, name)) | sparse(segments, size=before.st_size)
        if self._settled(before, self._settled_ns):
            metadata[SEEN] = seen(before, boot=self._boot)
        size = sum(length for _, length in segments)
        # It was looked at before it was read: what is written to it from then on changes its signature.
        return Entry(key, metadata, size, pieces, signature_of(before) if whole else ())

    def _fill(self, file: int, segment: Segment, room: Room) -> Segment:
        offset, length = segment
        at, room.at = room.at, room.at + length
        self._read_into(file, offset, self._ring.view(at, length))
        return at, length

    def _read_into(self, file: int, offset: int, view: memoryview) -> None:
        """A file that shrank meanwhile ends in zeros: it is another one by now."""
        done = 0
        with view:
            while done < len(view):
                count = os.preadv(file, [view[done:]], offset + done)
                if not count:
                    view[done:] = bytes(len(view) - done)
                    return
                done += count

    def _big(self, opened: OpenedDirectory, leaf: Leaf) -> Generator[Entry | Piece, None, None]:
        file = _open(opened, leaf[0])
        if file < 0:
            return
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                return
            segments = data_segments(file, before)
            yield self._entry(opened, leaf, before, file, segments, pieces=(), whole=True)
            for offset, length in segments:
                for begin in range(0, length, PIECE_BYTES):
                    size = min(PIECE_BYTES, length - begin)
                    while (got := self._ring.room(size)) is None:
                        self._ring.wait(self._stop)
                    room, taken = got
                    for step in range(0, size, BLOCK_BYTES):
                        self._stop.check()
                        at = self._ring.view(room.at + step, min(BLOCK_BYTES, size - step))
                        self._read_into(file, offset + begin + step, at)
                    yield Piece(room.at, size, taken)
        finally:
            os.close(file)


def _open(opened: OpenedDirectory, name: bytes) -> int:
    """-1 if it is gone, or can't be opened as a file any more."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=opened.descriptor)
    except FileNotFoundError:
        return -1
