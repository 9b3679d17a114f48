"""Walks a tree and puts the data of its files into one content file: the making of a moment.

One file for all of it, because making many files is what copying a tree costs most; and because it is let go of
at once. Where the file system shares blocks, data is shared, not copied.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from brokers.sdk.errors import permanent_error
from brokers.volume.attributes import SEEN, known, seen, sparse, xattrs_of
from brokers.volume.inventory import Earlier, Entry, Kind, signature_of
from brokers.volume.linux import Segment, clone_range, copy_range, data_segments, is_kept, open_directory
from brokers.volume.paths import Parts, encode, key_of
from brokers.volume.threads import Stop
from schemas.problems import CalqueError

TRIES = 3
ALIGNMENT = 64 << 10
"""Where shared data may begin; no file system has bigger blocks."""


Tell = Callable[[int], None]
"""Told how many bytes were put so far, from the thread that puts them."""


def untold(_: int) -> None:
    """Nobody wants to know."""


class Content:
    """The content file: data is put at its end. What lies after ``begin`` is dropped when it is opened."""

    def __init__(self, file: Path, *, begin: int, clones: bool, stop: Stop, tell: Tell = untold) -> None:
        self._tell = tell
        self._file = file
        self._clones = clones
        self._stop = stop
        self._descriptor = -1
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

    def add(self, source: int, segments: Iterable[Segment]) -> tuple[Segment, ...]:
        """Where the data of the segments lies from now on."""
        pieces = []
        for offset, length in segments:
            at = -(-self.end // ALIGNMENT) * ALIGNMENT if self._clones else self.end
            if not (self._clones and clone_range(source, self._descriptor, offset=offset, length=length, at=at)):
                copy_range(source, self._descriptor, offset=offset, length=length, at=at, check=self._stop.check)
            pieces.append((at, length))
            self.end = at + length
            self._tell(self.end)
        return tuple(pieces)


class Survey:
    """One walk over a tree. ``changed`` says afterwards that somebody wrote meanwhile, ``skipped`` how many
    sockets and devices were left out.

    Data of a file is taken from ``earlier`` when its signature is the same and it was last written before
    ``trusted_ns`` (nanoseconds since the epoch). What is read now and was last written before ``settled_ns`` may be
    recognized by later copies, in this run (``boot``) of the machine.
    """

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
        self._tree = tree
        self._content = content
        self._earlier = earlier
        self._trusted_ns = trusted_ns
        self._stop = stop
        self._settled_ns = settled_ns
        self._boot = boot
        self._links: dict[tuple[int, int], str] = {}
        self.changed = False
        self.skipped = 0
        self.reused = 0

    def entries(self) -> Iterator[Entry]:
        """The entries of the tree, in the order of an inventory."""
        root = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            waiting: list[Parts] = [()]
            while waiting:
                self._stop.check()
                parts = waiting.pop()
                try:
                    directory = open_directory(root, parts)
                except (FileNotFoundError, NotADirectoryError):
                    self.changed = True
                    continue
                try:
                    below: list[Parts] = []
                    yield from self._directory(directory, parts, below)
                    waiting += reversed(below)
                finally:
                    os.close(directory)
        finally:
            os.close(root)

    def _directory(self, directory: int, parts: Parts, below: list[Parts]) -> Iterator[Entry]:
        before = os.fstat(directory)
        yield Entry(key_of(parts), _known(before, "directory", directory, parts))
        found: list[tuple[bytes, os.stat_result]] = []
        with os.scandir(directory) as listed:
            for each in listed:
                try:
                    info = each.stat(follow_symlinks=False)
                except FileNotFoundError:
                    self.changed = True
                    continue
                name = os.fsencode(each.name)
                if stat.S_ISDIR(info.st_mode):
                    below.append((*parts, name))
                else:
                    found.append((name, info))
        below.sort()
        found.sort()
        for name, info in found:
            self._stop.check()
            try:
                entry = self._leaf(directory, (*parts, name), info)
            except FileNotFoundError:
                self.changed = True
                continue
            if entry is not None:
                yield entry
        after = os.fstat(directory)
        if (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns):
            self.changed = True

    def _leaf(self, directory: int, parts: Parts, info: os.stat_result) -> Entry | None:
        if not is_kept(info.st_mode):
            self.skipped += 1
            return None
        key = key_of(parts)
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), key)
            if first != key:
                return Entry(key, {"type": "hardlink", "target": first})
        if stat.S_ISREG(info.st_mode):
            return self._file(directory, parts, key, info)
        if stat.S_ISFIFO(info.st_mode):
            return Entry(key, _known(info, "fifo", f"/proc/self/fd/{directory}/{os.fsdecode(parts[-1])}", parts))
        target = encode(os.readlink(parts[-1], dir_fd=directory))
        return Entry(key, {**known(info, kind="symlink", xattrs={}), "target": target})

    def _file(self, directory: int, parts: Parts, key: str, info: os.stat_result) -> Entry | None:
        earlier = self._earlier.find(key, parts)
        if earlier is not None and earlier.signature == signature_of(info) and info.st_ctime_ns < self._trusted_ns:
            self.reused += 1
            return earlier
        begin = self._content.end
        for tried in range(TRIES):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(parts[-1], flags, dir_fd=directory)
            try:
                before = os.fstat(file)
                if not stat.S_ISREG(before.st_mode):
                    self.changed = True
                    return None
                self._content.end = begin
                segments = data_segments(file, before)
                pieces = self._content.add(file, segments)
                metadata = _known(before, "file", file, parts) | sparse(segments, size=before.st_size)
                if before.st_ctime_ns < self._settled_ns:
                    metadata[SEEN] = seen(before, boot=self._boot)
                same = signature_of(before) == signature_of(os.fstat(file))
            finally:
                os.close(file)
            if same:
                break
            self.changed = self.changed or tried == TRIES - 1
        return Entry(key, metadata, sum(length for _, length in segments), pieces, signature_of(before))


def _known(info: os.stat_result, kind: Kind, where: int | str, parts: Parts) -> dict[str, str]:
    try:
        return known(info, kind=kind, xattrs=xattrs_of(where))
    except CalqueError as error:
        raise permanent_error(error.problem.code, f"{key_of(parts)}: {error.problem.message}") from None
