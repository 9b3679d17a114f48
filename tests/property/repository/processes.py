"""Processes on one repository that crash at any write: of an object, or of their own state."""

from __future__ import annotations

import contextlib
import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest import mock

from brokers.filesystem import objects as directory_objects
from brokers.repository.format1 import opencopy
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.objects import ObjectStore, StoredObject
from brokers.sdk.atomic import write_atomically
from tests.property.repository.inline import deterministic
from tests.property.repository.watching import Content, Watch
from tests.unit.repository.memory_store import MemoryStore

T = TypeVar("T")
PACK_BYTES = 3000
HOLD_SECONDS = 14 * 86400.0


class Crashed(Exception):
    """Stands for the end of a process."""


class Crash(NamedTuple):
    """The process ends at its n-th write from now on: before it, with half of it on the disk, or right after it."""

    at: int
    when: str


class Process:
    """One process: its own directory, and its access to the store."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.directory = world.directory / name
        self.repository: Repository | None = None
        self.copy = ""
        """The copy that it writes just now."""
        self._verified: dict[str, dict[bytes, set[str]]] = {}
        self._dead = True
        self._crash: Crash | None = None
        self._meanwhile: tuple[int, Callable[[], None]] | None = None
        self._calls = 0
        self._writes = 0
        self.directory.mkdir()
        (self.directory / "writer").write_text(f"{len(world.processes):016x}")

    @property
    def crashed(self) -> bool:
        return self._dead

    def running(self) -> Repository:
        """Its repository; started anew after a crash."""
        if self.repository is None:
            self._dead = False
            options = Options(
                recipient_key=self.world.directory / "recipient.key",
                pack_bytes=PACK_BYTES,
                hold_seconds=self.world.hold_seconds,
                retention_seconds=self.world.retention_seconds,
            )
            self.repository = Repository.open(Client(self), state=self.directory, options=options)
        return self.repository

    @contextlib.contextmanager
    def writing(self, copy: str) -> Iterator[None]:
        """What is put meanwhile belongs to this copy."""
        self.begins(copy)
        self.copy = copy
        try:
            yield
        finally:
            self.copy = ""

    def begins(self, copy: str) -> None:
        """What was verified of a copy that was open before, and is open no more, says nothing."""
        if copy not in self.running().open_copies():
            self._verified.pop(copy, None)

    def sealed(self, copy: str, chunks: set[bytes]) -> None:
        """A part of the copy was sealed: its chunks lie in the repository, and need not come again."""
        verified = self._verified.setdefault(copy, {})
        verified.update((chunk, self.world.watch.reliable(chunk)) for chunk in chunks)

    def lost(self, copy: str) -> None:
        """What was sealed of the copy may be gone."""
        self._verified.pop(copy, None)

    def is_there(self, chunk: bytes) -> bool:
        """Whether a chunk of the copy that is written was verified, and lies where it lay then."""
        return bool(self._verified.get(self.copy, {}).get(chunk, set()) & self.world.watch.reliable(chunk))

    @contextlib.contextmanager
    def doing(self, crash: Crash | None, meanwhile: tuple[int, Callable[[], None]] | None) -> Iterator[None]:
        """Around one deed: it may crash, and at its n-th call something else may happen."""
        self._crash, self._meanwhile, self._calls, self._writes = crash, meanwhile, 0, 0
        try:
            yield
        finally:
            self._crash = self._meanwhile = None
            if self._dead:
                self.end()

    def end(self) -> None:
        """The process is gone, and nothing of what it meant to do is done."""
        self._dead = True
        repository, self.repository = self.repository, None
        if repository is not None:
            with contextlib.suppress(Crashed):
                repository.close()

    def call(self, name: str, act: Callable[[], T]) -> T:
        """One call that changes nothing."""
        if not self._dead:
            self.world.turn(self, name)
        if self._dead:
            raise Crashed
        self._calls += 1
        if self._meanwhile is not None and self._calls == self._meanwhile[0]:
            deed, self._meanwhile = self._meanwhile[1], None
            deed()
        return act()

    def write(self, name: str, act: Callable[[], T], *, tear: Callable[[], object] = lambda: None) -> T:
        """One call that changes something."""
        return self.call(name, lambda: self._write(act, tear))

    def _write(self, act: Callable[[], T], tear: Callable[[], object]) -> T:
        self._writes += 1
        if self._crash is None or self._writes != self._crash.at:
            return act()
        if self._crash.when == "torn":
            tear()
        elif self._crash.when == "after":
            act()
        self._dead = True
        raise Crashed


class Client(ObjectStore):
    """What a process has of the store."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._store = process.world.store

    def put(self, name: str, content: bytes | memoryview) -> None:
        body = bytes(content)

        def act() -> None:
            self._store.put(name, body)
            self._world.was_put(self._process, name, body)

        self._process.write(name, act, tear=lambda: self._world.tear(lambda: self._store.put(name, body)))

    def delete(self, name: str) -> None:
        def act() -> None:
            self._world.watch.deleting(name, now=self._store.now())
            self._store.delete(name)
            self._world.watch.deleted(name)

        self._process.write(name, act)

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self._process.call(name, lambda: self._store.read(name, offset=offset, length=length))

    def look(self, name: str) -> StoredObject | None:
        return self._process.call(name, lambda: self._store.look(name))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter(self._process.call(prefix, lambda: list(self._store.list(prefix))))

    def free_bytes(self) -> int | None:
        return None

    def now(self) -> float:
        return self._store.now()

    def close(self) -> None:
        """The store is the world's."""


class World:
    """A store, the processes that have it open, and the eye on it. Entered while it is used."""

    def __init__(self, directory: Path, store: ObjectStore, *, content: Callable[[str, str], Content]) -> None:
        self.directory = directory
        self.store = store
        self.watch = Watch(content)
        self.processes: dict[str, Process] = {}
        self.hold_seconds = HOLD_SECONDS
        self.retention_seconds = 0.0
        """What processes that start from now on lock copies for."""
        self.turn: Callable[[Process, str], None] = lambda _process, _name: None
        """Called before each call, with the object's name or prefix: who waits in it lets others go first."""
        self.skew = 0.0
        """By how much the clocks of processes differ from the store's."""
        self._ticks = 0
        self._tearing = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        self._stack.enter_context(deterministic(0, self._tick))
        write, remove = write_atomically, shutil.rmtree
        self._stack.enter_context(
            mock.patch.object(
                opencopy,
                "write_atomically",
                lambda path, data: self._of(path).write(path.name, lambda: write(path, data)),
            )
        )
        files = types.SimpleNamespace(
            rmtree=lambda path, ignore_errors: self._of(path).write(
                path.name, lambda: remove(path, ignore_errors=ignore_errors)
            )
        )
        self._stack.enter_context(mock.patch.object(opencopy, "shutil", files))
        synced = directory_objects._write_synced

        def torn(path: Path, content: bytes | memoryview) -> None:
            if self._tearing:
                path.write_bytes(bytes(content[: len(content) // 2]))
                raise Crashed
            synced(path, content)

        self._stack.enter_context(mock.patch.object(directory_objects, "_write_synced", torn))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.end()
        self._stack.close()

    def process(self, name: str) -> Process:
        if name not in self.processes:
            self.processes[name] = Process(self, name)
        return self.processes[name]

    def jump(self, seconds: float) -> None:
        """The clock of a store in memory jumps; that of a directory is the machine's."""
        if isinstance(self.store, MemoryStore):
            self.store.there.clock += seconds

    def was_put(self, process: Process, name: str, body: bytes) -> None:
        brought = self.watch.put(name, body)
        if any(process.is_there(chunk) for chunk in brought) and not self.watch.excused(process.copy):
            self.watch.broken.append(f"{process.name} sent chunks of {process.copy} again that were verified: {name}")

    def tear(self, act: Callable[[], object]) -> None:
        """Half of what is written reaches the disk, where a store can hold half an object at all."""
        self._tearing = True
        try:
            if isinstance(self.store, directory_objects.DirectoryStore):
                with contextlib.suppress(Crashed):
                    act()
        finally:
            self._tearing = False

    def _of(self, path: Any) -> Process:
        return self.processes[Path(path).relative_to(self.directory).parts[0]]

    def _tick(self) -> float:
        self._ticks += 1
        return 1_700_000_000.0 + self._ticks / 1000 + self.skew
