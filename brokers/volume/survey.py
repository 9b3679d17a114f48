"""Walks a tree and puts the data of its files into one content file: the making of a moment.

One file for all of it, because making many files is what copying a tree costs most; and because it is let go of
at once. Where the file system shares blocks, data is shared, not copied.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from brokers.sdk.errors import permanent_error
from brokers.volume.attributes import SEEN, known, seen, sparse, xattrs_of
from brokers.volume.inventory import Earlier, Entry, Kind, signature_of
from brokers.volume.linux import Segment, clone_range, copy_range, data_segments, is_kept, open_directory, times_tell
from brokers.volume.paths import Parts, encode, key_of
from brokers.volume.threads import Stop
from schemas.problems import CalqueError

TRIES = 3
ALIGNMENT = 64 << 10
"""Where shared data may begin; no file system has bigger blocks."""
THREADS = 2
AHEAD = 8
BATCH_BYTES = 4 << 20
BATCH_ENTRIES = 256
"""How much one thread reads at once: what was found in one directory, or less."""


Tell = Callable[[int], None]
"""Told how many bytes were put so far, from the thread that puts them."""


def untold(_: int) -> None:
    """Nobody wants to know."""


class Room:
    """Where the data of some files goes, one behind the other."""

    __slots__ = ("at", "end")

    def __init__(self, at: int, end: int) -> None:
        self.at = at
        self.end = end


NO_ROOM = Room(0, 0)


class Content:
    """The content file: data is put at its end, by several threads. What lies after ``begin`` is dropped when it is
    opened."""

    def __init__(self, file: Path, *, begin: int, clones: bool, stop: Stop, tell: Tell = untold) -> None:
        self._tell = tell
        self._file = file
        self._clones = clones
        self._stop = stop
        self._descriptor = -1
        self._lock = threading.Lock()
        self._done = 0
        self.end = begin

    def __enter__(self) -> Content:
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._descriptor, self.end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                # a file that shrank while it was read ends in zeros
                os.ftruncate(self._descriptor, self.end)
        finally:
            os.close(self._descriptor)

    def room(self, size: int) -> Room:
        """Room for files that have so many bytes, so that they can be read together later."""
        if self._clones:
            return Room(0, 0)
        at = self._reserve(size)
        return Room(at, at + size)

    def add(self, source: int, segments: Iterable[Segment], room: Room) -> tuple[Segment, ...]:
        """Where the data of the segments lies from now on: in the room, if there is enough of it."""
        pieces = []
        for offset, length in segments:
            if length <= room.end - room.at:
                at = room.at
                room.at += length
            else:
                at = self._reserve(length)
            if not (self._clones and clone_range(source, self._descriptor, offset=offset, length=length, at=at)):
                copy_range(source, self._descriptor, offset=offset, length=length, at=at, check=self._stop.check)
            pieces.append((at, length))
            with self._lock:
                self._done += length
                self._tell(self._done)
        return tuple(pieces)

    def _reserve(self, size: int) -> int:
        with self._lock:
            at = -(-self.end // ALIGNMENT) * ALIGNMENT if self._clones else self.end
            self.end = at + size
        return at


class OpenedDirectory:
    """A directory, until all files in it were looked at."""

    def __init__(self, descriptor: int, parts: Parts) -> None:
        self.descriptor = descriptor
        self.parts = parts
        self.before = os.fstat(descriptor)
        self._lock = threading.Lock()
        self._users = 1

    def use(self) -> None:
        with self._lock:
            self._users += 1

    def leave(self) -> bool:
        """Whether it changed, if this was the last who looked."""
        with self._lock:
            self._users -= 1
            if self._users:
                return False
        try:
            after = os.fstat(self.descriptor)
        finally:
            os.close(self.descriptor)
        return (self.before.st_mtime_ns, self.before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns)


Leaf = tuple[bytes, str, os.stat_result]
"""Name, key, and what was seen of a regular file that is to be read."""
Found = list[Entry | Leaf]


class Walk:
    """One walk over a tree. ``changed`` says afterwards that somebody wrote meanwhile, ``skipped`` how many
    sockets and devices were left out.

    A file is that of ``earlier`` when its signature is the same and it was last written before ``trusted_ns``
    (nanoseconds since the epoch). What is read now and was last written before ``settled_ns`` may be recognized by
    later copies, in this run (``boot``) of the machine.
    """

    def __init__(
        self,
        tree: Path,
        *,
        earlier: Earlier,
        trusted_ns: int,
        stop: Stop,
        settled_ns: int = 0,
        boot: str = "",
    ) -> None:
        self._tree = tree
        self._earlier = earlier
        self._trusted_ns = trusted_ns
        self._stop = stop
        self._settled_ns = settled_ns
        self._boot = boot
        self._links: dict[tuple[int, int], str] = {}
        self._device = -1
        """Only what lies on this one was synced."""
        self._over = False
        self.changed = False
        self.skipped = 0
        self.reused = 0

    def _found(self) -> Iterator[tuple[OpenedDirectory, Found]]:
        """What there is, some at a time."""
        root = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if times_tell(root):
                self._device = os.fstat(root).st_dev
            waiting: list[Parts] = [()]
            while waiting:
                self._stop.check()
                parts = waiting.pop()
                try:
                    opened = OpenedDirectory(open_directory(root, parts), parts)
                except (FileNotFoundError, NotADirectoryError):
                    self.changed = True
                    continue
                try:
                    below: list[Parts] = []
                    for found in self._directory(opened, below):
                        yield opened, found
                    waiting += reversed(below)
                finally:
                    self._leave(opened)
        finally:
            os.close(root)

    def _leave(self, opened: OpenedDirectory) -> None:
        if opened.leave():
            self.changed = True

    def _directory(self, opened: OpenedDirectory, below: list[Parts]) -> Iterator[Found]:
        directory, parts = opened.descriptor, opened.parts
        found: Found = [self._itself(opened)]
        listed: list[tuple[bytes, os.stat_result]] = []
        with os.scandir(directory) as names:
            for each in names:
                try:
                    info = each.stat(follow_symlinks=False)
                except FileNotFoundError:
                    self.changed = True
                    continue
                name = os.fsencode(each.name)
                if stat.S_ISDIR(info.st_mode):
                    below.append((*parts, name))
                else:
                    listed.append((name, info))
        below.sort()
        listed.sort()
        prefix = f"{key_of(parts)}/" if parts else ""
        size = 0
        for name, info in listed:
            try:
                leaf = self._leaf(directory, parts, name, prefix + encode(name), info)
            except FileNotFoundError:
                self.changed = True
                continue
            if leaf is None:
                continue
            found.append(leaf)
            if not isinstance(leaf, Entry):
                size += info.st_size
            if size >= BATCH_BYTES or len(found) >= BATCH_ENTRIES:
                self._stop.check()
                yield found
                found, size = [], 0
        yield found

    def _settled(self, info: os.stat_result, before_ns: int) -> bool:
        """Whether a file's times tell of whatever is written to it after an instant."""
        return info.st_ctime_ns < before_ns and info.st_dev == self._device

    def _itself(self, opened: OpenedDirectory) -> Entry:
        parts = opened.parts
        key = key_of(parts)
        entry = Entry(key, known_of(opened.before, "directory", opened.descriptor, parts))
        return _same(entry, self._earlier.find(key, parts, is_directory=True))

    def _leaf(self, directory: int, parts: Parts, name: bytes, key: str, info: os.stat_result) -> Entry | Leaf | None:
        """What has to be read comes as it is."""
        if not is_kept(info.st_mode):
            self.skipped += 1
            return None
        earlier = self._earlier.find(key, (*parts, name))
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), key)
            if first != key:
                return _same(Entry(key, {"type": "hardlink", "target": first}), earlier)
        if stat.S_ISLNK(info.st_mode):
            target = encode(os.readlink(name, dir_fd=directory))
            return _same(Entry(key, {**known(info, kind="symlink", xattrs={}), "target": target}), earlier)
        if stat.S_ISFIFO(info.st_mode):
            where = f"/proc/self/fd/{directory}/{os.fsdecode(name)}"
            return _same(Entry(key, known_of(info, "fifo", where, (*parts, name))), earlier)
        if earlier is None or earlier.signature != signature_of(info) or not self._settled(info, self._trusted_ns):
            return name, key, info
        self.reused += 1
        return earlier


class Survey(Walk):
    """A walk whose files are read into a content file."""

    def __init__(
        self,
        tree: Path,
        *,
        content: Content,
        earlier: Earlier,
        trusted_ns: int,
        stop: Stop,
        settled_ns: int = 0,
        boot: str = "",
    ) -> None:
        super().__init__(tree, earlier=earlier, trusted_ns=trusted_ns, stop=stop, settled_ns=settled_ns, boot=boot)
        self._content = content

    def entries(self) -> Generator[Entry, None, None]:
        """The entries of the tree, in the order of an inventory. Files are read by some threads, ahead of who asks:
        close it before the content is closed."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="survey")
        waiting: deque[list[Entry] | Future[list[Entry]]] = deque()
        try:
            for opened, found in self._found():
                if any(not isinstance(each, Entry) for each in found):
                    opened.use()
                    waiting.append(threads.submit(self._read, opened, found))
                else:
                    waiting.append([each for each in found if isinstance(each, Entry)])
                while len(waiting) > AHEAD:
                    yield from _result(waiting.popleft())
            while waiting:
                yield from _result(waiting.popleft())
        finally:
            self._over = True  # those that were not begun only close what they would have read from
            threads.shutdown()

    def _read(self, opened: OpenedDirectory, found: Found) -> list[Entry]:
        """The entries of what was found, in a thread."""
        try:
            if self._over:
                return []
            wanted = (each[2] for each in found if not isinstance(each, Entry))
            # What has holes takes less, and finds its place by itself.
            sizes = (info.st_size for info in wanted if not _has_holes(info))
            room = self._content.room(sum(sizes))
            entries: list[Entry] = []
            for each in found:
                if isinstance(each, Entry):
                    entries.append(each)
                    continue
                self._stop.check()
                name, key, _ = each
                try:
                    entry = self._file(opened.descriptor, (*opened.parts, name), key, room)
                except FileNotFoundError:
                    self.changed = True
                    continue
                if entry is not None:
                    entries.append(entry)
            return entries
        finally:
            self._leave(opened)

    def _file(self, directory: int, parts: Parts, key: str, room: Room) -> Entry | None:
        for tried in range(TRIES):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(parts[-1], flags, dir_fd=directory)
            try:
                before = os.fstat(file)
                if not stat.S_ISREG(before.st_mode):
                    self.changed = True
                    return None
                segments = data_segments(file, before)
                pieces = self._content.add(file, segments, NO_ROOM if _has_holes(before) else room)
                metadata = known_of(before, "file", file, parts) | sparse(segments, size=before.st_size)
                if self._settled(before, self._settled_ns):
                    metadata[SEEN] = seen(before, boot=self._boot)
                same = signature_of(before) == signature_of(os.fstat(file))
            finally:
                os.close(file)
            if same:
                break
            self.changed = self.changed or tried == TRIES - 1
        return Entry(key, metadata, sum(length for _, length in segments), pieces, signature_of(before))


def _result(found: list[Entry] | Future[list[Entry]]) -> list[Entry]:
    return found.result() if isinstance(found, Future) else found


def _same(entry: Entry, earlier: Entry | None) -> Entry:
    """The earlier one, if it says the same of what has no data."""
    return earlier if earlier is not None and earlier.metadata == entry.metadata else entry


def _has_holes(info: os.stat_result) -> bool:
    return info.st_blocks * 512 < info.st_size


def known_of(info: os.stat_result, kind: Kind, where: int | str, parts: Parts) -> dict[str, str]:
    try:
        return known(info, kind=kind, xattrs=xattrs_of(where))
    except CalqueError as error:
        raise permanent_error(error.problem.code, f"{key_of(parts)}: {error.problem.message}") from None
