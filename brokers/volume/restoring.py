"""Makes a tree from the entries of a copy, inside one directory and nowhere else.

Every name on the way to an entry is opened without following links, below the directory that was given, so an entry
can't be written anywhere else whatever the copy says. Directories get their modes, access lists and times last.
Owners are set by root alone; who is not root keeps no set-id bits either.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

from brokers.sdk.frames import EntryBegin, KnownEntry
from brokers.volume.attributes import mode_in, number, segments_in, xattrs_in
from brokers.volume.linux import Segment, open_directory, sync_filesystem, write_fully
from brokers.volume.paths import Parts, WrongCopy, decode, parts_of

_SET_IDS = 0o6000
_PLAIN_BITS = 0o777
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
Head = EntryBegin | KnownEntry
_LENGTH = struct.Struct(">I")
_FAULTS = frozenset(
    {
        errno.EEXIST,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EXDEV,
        errno.EMLINK,
        errno.EFBIG,
    }
)


class OpenFile:
    """A regular file that is being filled: data comes in order and lands in the file's segments."""

    def __init__(self, descriptor: int, segments: Sequence[Segment]) -> None:
        self.descriptor = descriptor
        self._segments = iter(segments)
        self._at = self._left = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes. There are never more than the segments hold: sizes were compared."""
        view = memoryview(data)
        while view:
            if not self._left:
                self._at, self._left = next(self._segments)
                continue
            piece = view[: self._left]
            write_fully(self.descriptor, piece, at=self._at)
            self._at += len(piece)
            self._left -= len(piece)
            view = view[len(piece) :]


class Restorer:
    """Fills the empty directory ``tree``. ``notes`` is a file of its own, outside. Calls block; one at a time, but for
    :meth:`add` of what is no directory: several threads may do that, once the directories are there."""

    def __init__(self, tree: Path, *, notes: Path) -> None:
        self._tree = tree
        self._notes_file = notes
        self._owners = os.geteuid() == 0
        self._root = -1
        self._parents: dict[int, tuple[Parts, int]] = {}
        self._filling: OpenFile | None = None

    def __enter__(self) -> Restorer:
        self._root = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._notes = self._notes_file.open("w+b")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self._notes.close()
        self._notes_file.unlink(missing_ok=True)
        os.close(self._root)

    def add(self, entries: Iterable[tuple[Head, bytes | memoryview]]) -> None:
        """Make entries whose bytes are all there. Raises :class:`WrongCopy`, ``OSError``."""
        for head, data in entries:
            with self._blamed(head):
                self._make(head, data)

    def begin(self, head: EntryBegin) -> OpenFile:
        """Begin a regular file whose bytes follow; :meth:`finish` must come before the next entry."""
        with self._blamed(head):
            if head.metadata.get("type") != "file":
                raise WrongCopy("only files have this much data")
            self._filling = self._open(head)
            return self._filling

    def finish(self, head: EntryBegin, file: OpenFile) -> None:
        """The file is whole."""
        self._filling = None
        with self._blamed(head):
            self._close(head, file)

    def complete(self) -> None:
        """Everything was added: set what directories must be given last, children before parents, and make all of
        it durable."""
        self._leave()
        for head in self._directories():
            with self._blamed(head):
                descriptor = open_directory(self._root, parts_of(head.key))
                try:
                    self._set(descriptor, head.metadata)
                finally:
                    os.close(descriptor)
        sync_filesystem(self._root)

    @contextmanager
    def _blamed(self, head: Head) -> Iterator[None]:
        try:
            yield
        except WrongCopy as error:
            raise WrongCopy(f"entry {head.key[:200]!r}: {error}") from None
        except OSError as error:
            if error.errno not in _FAULTS:
                raise
            raise WrongCopy(f"entry {head.key[:200]!r} can't be made: {error.strerror}") from None

    def _make(self, head: Head, data: bytes | memoryview) -> None:
        kind = head.metadata.get("type")
        if kind == "file":
            file = self._open(head)
            try:
                file.write(data)
            except BaseException:
                os.close(file.descriptor)
                raise
            self._close(head, file)
            return
        if data:
            raise WrongCopy(f"a {kind} has no data")
        parts = parts_of(head.key)
        if kind == "directory":
            self._directory(parts, head)
            return
        directory, name = self._place(parts)
        if kind == "symlink":
            os.symlink(decode(head.metadata.get("target", "")), name, dir_fd=directory)
            self._set_link(directory, name, head.metadata)
        elif kind == "hardlink":
            self._hardlink(directory, name, head.metadata)
        elif kind == "fifo":
            os.mkfifo(name, mode=0o600, dir_fd=directory)
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                # it can't be opened without a reader; this path leads to what was just made and nowhere else
                self._set(f"/proc/self/fd/{descriptor}", head.metadata)
            finally:
                os.close(descriptor)
        else:
            raise WrongCopy(f"its type {kind!r} is unknown")

    def _directory(self, parts: Parts, head: Head) -> None:
        if parts:
            directory, name = self._place(parts)
            os.mkdir(name, mode=0o700, dir_fd=directory)
        record = msgspec.json.encode(EntryBegin(head.key, head.size, head.metadata))
        self._notes.write(record + _LENGTH.pack(len(record)))

    def _hardlink(self, directory: int, name: bytes, metadata: Mapping[str, str]) -> None:
        target = parts_of(metadata.get("target", ""))
        if not target:
            raise WrongCopy("it links to the tree itself")
        source = open_directory(self._root, target[:-1])
        try:
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(source)

    def _open(self, head: Head) -> OpenFile:
        whole, segments = segments_in(head.metadata, size=head.size)
        mode = mode_in(head.metadata) & _PLAIN_BITS
        directory, name = self._place(parts_of(head.key))
        # its mode at once: nobody else gets into the tree before it is whole
        descriptor = os.open(name, _NEW, mode, dir_fd=directory)
        try:
            if "segments" in head.metadata:
                os.ftruncate(descriptor, whole)
        except BaseException:
            os.close(descriptor)
            raise
        return OpenFile(descriptor, segments)

    def _close(self, head: Head, file: OpenFile) -> None:
        try:
            self._set_file(file.descriptor, head.metadata)
        finally:
            os.close(file.descriptor)

    def _set(self, where: int | str, metadata: Mapping[str, str]) -> None:
        """Owner, mode, attributes, times: in this order, for each but the last would undo the one before."""
        mode = mode_in(metadata)
        if self._owners:
            os.chown(where, number(metadata, "uid"), number(metadata, "gid"))
        else:
            mode &= ~_SET_IDS
        os.chmod(where, mode)  # noqa: PTH101 - it may be a descriptor
        for name, value in xattrs_in(metadata).items():
            os.setxattr(where, name, value)
        mtime = number(metadata, "mtime")
        os.utime(where, ns=(mtime, mtime))

    def _set_file(self, descriptor: int, metadata: Mapping[str, str]) -> None:
        """As :meth:`_set`, of a file that was just made: what it has already is not set again."""
        mode, found = mode_in(metadata), os.fstat(descriptor)
        chowned = False
        if self._owners:
            owner = number(metadata, "uid"), number(metadata, "gid")
            if chowned := owner != (found.st_uid, found.st_gid):
                os.chown(descriptor, *owner)
        else:
            mode &= ~_SET_IDS
        if chowned or stat.S_IMODE(found.st_mode) != mode:
            os.chmod(descriptor, mode)
        for name, value in xattrs_in(metadata).items():
            os.setxattr(descriptor, name, value)
        mtime = number(metadata, "mtime")
        os.utime(descriptor, ns=(mtime, mtime))

    def _set_link(self, directory: int, name: bytes, metadata: Mapping[str, str]) -> None:
        if self._owners:
            owner, group = number(metadata, "uid"), number(metadata, "gid")
            os.chown(name, owner, group, dir_fd=directory, follow_symlinks=False)
        mtime = number(metadata, "mtime")
        os.utime(name, ns=(mtime, mtime), dir_fd=directory, follow_symlinks=False)

    def _place(self, parts: Parts) -> tuple[int, bytes]:
        """The open directory that an entry goes into, and the entry's name in it."""
        if not parts:
            raise WrongCopy("the tree itself is a directory")
        thread = threading.get_ident()
        parent = self._parents.get(thread)
        if parent is None or parent[0] != parts[:-1]:
            opened = open_directory(self._root, parts[:-1])
            self._parents[thread] = (parts[:-1], opened)
            if parent is not None:
                os.close(parent[1])
            return opened, parts[-1]
        return parent[1], parts[-1]

    def _leave(self) -> None:
        """No thread is at work any more."""
        while self._parents:
            os.close(self._parents.popitem()[1][1])

    def _directories(self) -> Iterator[EntryBegin]:
        """The directories, last one first."""
        decoder = msgspec.json.Decoder(EntryBegin)
        at = self._notes.tell()
        while at > 0:
            self._notes.seek(at - _LENGTH.size)
            (length,) = _LENGTH.unpack(self._notes.read(_LENGTH.size))
            at -= _LENGTH.size + length
            self._notes.seek(at)
            yield decoder.decode(self._notes.read(length))
