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
from pathlib import Path
from types import TracebackType

import msgspec

from brokers.sdk.digests import Buffer
from brokers.sdk.frames import EntryBegin, KnownEntry
from brokers.volume.attributes import mode_in, number, segments_in, xattrs_in
from brokers.volume.flushing import Flusher
from brokers.volume.linux import Segment, open_directory, write_fully
from brokers.volume.paths import Parts, WrongCopy, decode, parts_of

_SET_IDS = 0o6000
_PLAIN_BITS = 0o777
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
Head = EntryBegin | KnownEntry
_LENGTH = struct.Struct(">I")
_ENTRY_BYTES = 4096
"""What an entry writes besides its bytes: that much of metadata, more or less."""
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

    def write(self, data: Buffer) -> None:
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


class _Folder:
    """A directory that is open for the files of one thread. ``prefix``: what their keys begin with; ``made``: owner,
    group and mode that a new file there gets, by the mode that was asked for."""

    def __init__(self, descriptor: int, *, prefix: str, parts: Parts) -> None:
        self.descriptor = descriptor
        self.prefix = prefix
        self.parts = parts
        self._made: dict[int, tuple[int, int, int]] = {}

    def made(self, descriptor: int, asked: int) -> tuple[int, int, int]:
        """What a file has that was just made: what depends on the directory alone is asked once."""
        found = self._made.get(asked)
        if found is None:
            info = os.fstat(descriptor)
            found = self._made[asked] = (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))
        return found


class Restorer:
    """Fills the empty directory ``tree``. ``notes`` is a file of its own, outside. Calls block; one at a time, but for
    :meth:`add` of what is no directory: several threads may do that, once the directories are there."""

    def __init__(self, tree: Path, *, notes: Path) -> None:
        self._tree = tree
        self._notes_file = notes
        self._owners = os.geteuid() == 0
        self._root = -1
        self._folders: dict[int, _Folder] = {}

    def __enter__(self) -> Restorer:
        self._root = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._flusher = Flusher(self._root)
        self._notes = self._notes_file.open("w+b")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        self._notes.close()
        self._notes_file.unlink(missing_ok=True)
        os.close(self._root)

    def add(self, entries: Iterable[tuple[Head, Buffer]]) -> None:
        """Make entries whose bytes are all there. Raises :class:`WrongCopy`, ``OSError``."""
        size = 0
        for head, data in entries:
            try:
                self._make(head, data)
            except (WrongCopy, OSError) as error:
                raise _blamed(head, error) from None
            size += len(data) + _ENTRY_BYTES
        self._flusher.wrote(size)

    def begin(self, head: EntryBegin) -> OpenFile:
        """Begin a regular file whose bytes follow; :meth:`finish` must come before the next entry."""
        try:
            if head.metadata.get("type") != "file":
                raise WrongCopy("only files have this much data")
            return self._open(head)
        except (WrongCopy, OSError) as error:
            raise _blamed(head, error) from None

    def write(self, file: OpenFile, data: Buffer) -> None:
        """The next bytes of such a file."""
        file.write(data)
        self._flusher.wrote(len(data))

    def finish(self, head: EntryBegin, file: OpenFile) -> None:
        """The file is whole."""
        try:
            self._close(head, file)
        except (WrongCopy, OSError) as error:
            raise _blamed(head, error) from None

    def complete(self) -> None:
        """Everything was added: set what directories must be given last, children before parents, and make all of
        it durable."""
        self._close_folders()
        for head in self._directories():
            try:
                descriptor = open_directory(self._root, parts_of(head.key))
                try:
                    self._set(descriptor, head.metadata)
                finally:
                    os.close(descriptor)
            except (WrongCopy, OSError) as error:
                raise _blamed(head, error) from None
        self._flusher.finish()

    def leave(self) -> None:
        """Nothing more is added, and no thread adds any more: end what is done beside it. May wait for the disk."""
        self._close_folders()
        self._flusher.stop()

    def _make(self, head: Head, data: Buffer) -> None:
        metadata = head.metadata
        kind = metadata.get("type")
        if kind == "file":
            if "segments" in metadata:
                self._sparse(head, data)
            else:
                self._file(head, data)
            return
        if data:
            raise WrongCopy(f"a {kind} has no data")
        if kind == "directory":
            self._directory(parts_of(head.key), head)
            return
        folder, name = self._place(head.key)
        directory = folder.descriptor
        if kind == "symlink":
            os.symlink(decode(metadata.get("target", "")), name, dir_fd=directory)
            self._set_link(directory, name, metadata)
        elif kind == "hardlink":
            self._hardlink(directory, name, metadata)
        elif kind == "fifo":
            os.mkfifo(name, mode=0o600, dir_fd=directory)
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                # it can't be opened without a reader; this path leads to what was just made and nowhere else
                self._set(f"/proc/self/fd/{descriptor}", metadata)
            finally:
                os.close(descriptor)
        else:
            raise WrongCopy(f"its type {kind!r} is unknown")

    def _file(self, head: Head, data: Buffer) -> None:
        """With as few calls as can be: most entries of most trees are such files."""
        asked = mode_in(head.metadata) & _PLAIN_BITS
        folder, name = self._place(head.key)
        descriptor = os.open(name, _NEW, asked, dir_fd=folder.descriptor)
        try:
            if data and (count := os.write(descriptor, data)) != len(data):
                write_fully(descriptor, memoryview(data)[count:], at=count)
            self._set_file(descriptor, head.metadata, found=folder.made(descriptor, asked))
        finally:
            os.close(descriptor)

    def _sparse(self, head: Head, data: Buffer) -> None:
        file = self._open(head)
        try:
            file.write(data)
        except BaseException:
            os.close(file.descriptor)
            raise
        self._close(head, file)

    def _directory(self, parts: Parts, head: Head) -> None:
        if parts:
            folder, name = self._place(head.key)
            os.mkdir(name, mode=0o700, dir_fd=folder.descriptor)
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
        folder, name = self._place(head.key)
        # its mode at once: nobody else gets into the tree before it is whole
        descriptor = os.open(name, _NEW, mode, dir_fd=folder.descriptor)
        try:
            if "segments" in head.metadata:
                os.ftruncate(descriptor, whole)
        except BaseException:
            os.close(descriptor)
            raise
        return OpenFile(descriptor, segments)

    def _close(self, head: Head, file: OpenFile) -> None:
        try:
            info = os.fstat(file.descriptor)
            found = info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)
            self._set_file(file.descriptor, head.metadata, found=found)
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

    def _set_file(self, descriptor: int, metadata: Mapping[str, str], *, found: tuple[int, int, int]) -> None:
        """As :meth:`_set`, of a file that was just made: what it has already (owner, group, mode) is not set again."""
        mode = mode_in(metadata)
        chowned = False
        if self._owners:
            owner = number(metadata, "uid"), number(metadata, "gid")
            if chowned := owner != found[:2]:
                os.chown(descriptor, *owner)
        else:
            mode &= ~_SET_IDS
        if chowned or found[2] != mode:
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

    def _place(self, key: str) -> tuple[_Folder, bytes]:
        """The open directory that an entry goes into, and the entry's name in it."""
        thread, cut = threading.get_ident(), key.rfind("/") + 1
        opened, name = self._folders.get(thread), key[cut:]
        if opened is not None and opened.prefix == key[:cut] and _plain(name):
            return opened, name.encode()
        parts = parts_of(key)
        if not parts:
            raise WrongCopy("the tree itself is a directory")
        if opened is None or opened.parts != parts[:-1]:
            before = opened
            descriptor = open_directory(self._root, parts[:-1])
            opened = self._folders[thread] = _Folder(descriptor, prefix=key[:cut], parts=parts[:-1])
            if before is not None:
                os.close(before.descriptor)
        return opened, parts[-1]

    def _close_folders(self) -> None:
        """No thread is at work any more."""
        while self._folders:
            os.close(self._folders.popitem()[1].descriptor)

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


def _plain(name: str) -> bool:
    """Whether the last part of a key stands for itself, and can be a name."""
    return name.isascii() and "%" not in name and "\0" not in name and name not in ("", ".", "..")


def _blamed(head: Head, error: WrongCopy | OSError) -> WrongCopy | OSError:
    """The error as one of the entry, if it is the copy's fault."""
    if isinstance(error, WrongCopy):
        return WrongCopy(f"entry {head.key[:200]!r}: {error}")
    if error.errno not in _FAULTS:
        return error
    return WrongCopy(f"entry {head.key[:200]!r} can't be made: {error.strerror}")
