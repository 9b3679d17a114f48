"""Many writers and collectors on one repository, stalled and killed at any call of the store: whatever is committed
keeps every pack that it needs, at every moment."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from brokers.repository.compression import decompress_any
from brokers.repository.errors import AlreadyCommitted, Conflict, CopyNotFound, IncompleteCopy, KeptGone
from brokers.repository.format1.commits import COPIES, Commit
from brokers.repository.format1.keyring import load_or_create_secret
from brokers.repository.format1.packs import PACKS
from brokers.repository.format1.repository import Options, Repository
from brokers.repository.manifest import CopyInfo
from brokers.repository.objects import StoredObject
from tests.unit.repository.copies import read_entries, read_part, write_entries, write_on_top, write_part
from tests.unit.repository.memory_store import MemoryObjects, MemoryStore

POOL = [random.Random(seed).randbytes(2000) for seed in range(20)]
PARTS = 3
PATIENCE_SECONDS = 60.0

T = TypeVar("T")


class Killed(Exception):
    """Stands for the end of a process."""


class Turns:
    """Lets one store call at a time go on, in a random order, some of them much later than they were asked for."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.granted = 0
        self._change = threading.Condition()
        self._waiting: dict[object, int] = {}
        self._running = False

    def take(self) -> None:
        ticket = object()
        with self._change:
            stall = self.random.randrange(300) if self.random.random() < 0.03 else 0
            self._waiting[ticket] = self.granted + stall
            self._change.notify_all()
            while self._running or self._next() is not ticket:
                assert self._change.wait(PATIENCE_SECONDS), "no store call goes on any more"
            del self._waiting[ticket]
            self._running = True
            self.granted += 1

    def give(self) -> None:
        with self._change:
            self._running = False
            self._change.notify_all()

    def _next(self) -> object:
        ready = [ticket for ticket, after in self._waiting.items() if after <= self.granted]
        if not ready:
            return min(self._waiting, key=lambda ticket: self._waiting[ticket])
        return ready[self.granted * 7919 % len(ready)]


class Checked(MemoryObjects):
    """Looks at every change whether what is committed is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: dict[str, Commit] = {}
        self.reader: Repository | None = None
        self.broken: list[str] = []
        self.deleted_packs = 0

    def changed(self, call: str, name: str) -> None:
        if self.reader is None:
            return
        if call == "put" and name.startswith(COPIES):
            plain = self.reader.keys.unseal(name, self.objects[name][0])
            self.commits[name] = msgspec.json.decode(decompress_any(plain), type=Commit)
        elif call == "delete":
            self.commits.pop(name, None)
            self.deleted_packs += name.startswith(PACKS)
        if name.startswith((COPIES, PACKS)):
            for commit_name, commit in self.commits.items():
                for pack in commit.packs:
                    if f"{PACKS}{pack}" not in self.objects:
                        self.broken.append(f"{commit_name} lost pack {pack} at {call} {name}")


class Client(MemoryStore):
    """One process's access: takes turns, and ends at a call."""

    def __init__(self, there: Checked, turns: Turns, *, killed_after: int | None) -> None:
        super().__init__(there)
        self._checked = there
        self._turns = turns
        self._left = killed_after

    def put(self, name: str, content: bytes | memoryview) -> None:
        self._turn(lambda: MemoryStore.put(self, name, content), "put", name)

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self._turn(lambda: MemoryStore.read(self, name, offset=offset, length=length), "read", name)

    def look(self, name: str) -> StoredObject | None:
        return self._turn(lambda: MemoryStore.look(self, name), "look", name)

    def delete(self, name: str) -> None:
        self._turn(lambda: MemoryStore.delete(self, name), "delete", name)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter(self._turn(lambda: list(MemoryStore.list(self, prefix)), "list", prefix))

    def _turn(self, call: Callable[[], T], what: str, name: str) -> T:
        self._turns.take()
        try:
            if self._left is not None:
                self._left -= 1
                # Before the call or right after it: a caller that dies knows not which.
                if self._left < 0:
                    raise Killed(name)
                if self._left == 0 and self._turns.random.random() < 0.5:
                    raise Killed(name)
            found = call()
            if what in ("put", "delete"):
                self._checked.changed(what, name)
            if self._left == 0:
                raise Killed(name)
            return found
        finally:
            self._turns.give()


def content_of(copy: str) -> list[bytes]:
    """The parts of a copy follow from its name; copies of near numbers share some of them."""
    number = int(copy.partition("-")[2])
    return [POOL[(number + at) % len(POOL)] for at in range(PARTS)]


def tree_of(copy: str) -> dict[str, bytes]:
    """The entries of a copy, likewise."""
    number = int(copy.partition("-")[2])
    return {str(at % len(POOL)): POOL[at % len(POOL)][:700] for at in range(number, number + 4)}


class Site:
    """A process that writes, deletes and collects, dies now and then, and starts again with its state."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.random = random.Random(f"{world.seed} {name}")
        self.did: Counter[str] = Counter()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            while self.world.turns.granted < self.world.steps:
                self._one_life()
        except BaseException as error:
            self.problem = error

    def _one_life(self) -> None:
        client = Client(self.world.there, self.world.turns, killed_after=self.random.randrange(20, 1500))
        repository: Repository | None = None
        try:
            repository = self.world.open(client, self.name)
            while self.world.turns.granted < self.world.steps:
                self._one_deed(repository)
        except Killed:
            self.did["killed"] += 1
        finally:
            if repository is not None:
                repository.close()

    def _one_deed(self, repository: Repository) -> None:
        deed = self.random.choices(["write", "delete", "collect", "compact", "abort"], [6, 6, 3, 1, 1])[0]
        try:
            if deed == "write":
                self._write(repository)
            elif deed == "collect":
                assert repository.collect().blocked is None
            elif deed == "compact":
                repository.collect(compact=True)
            elif deed == "delete":
                copies = repository.commits.copies()
                if copies:
                    repository.delete(self.random.choice(copies))
            else:
                repository.abort(self._copy())
        except (AlreadyCommitted, Conflict, CopyNotFound, IncompleteCopy, KeptGone) as error:
            # Not an accident: what it was told when it was too late for its copy.
            deed = f"{deed}: {error.code}"
        self.did[deed] += 1

    def _copy(self) -> str:
        return f"{self.name}-{self.random.randrange(len(POOL))}"

    def _write(self, repository: Repository) -> None:
        copy = self._copy()
        chosen = content_of(copy)
        opened = repository.open_write(copy, CopyInfo())
        sealed = opened.sealed()
        for at, data in enumerate(chosen):
            if f"part{at}" not in sealed:
                write_part(opened, f"part{at}", data)
        if "tree" not in sealed:
            copies = repository.commits.copies()
            if copies and self.random.random() < 0.7:
                parent = self.random.choice(copies)
                self.did["kept"] += write_on_top(repository, opened, "tree", tree_of(copy), parent=parent)
            else:
                write_entries(opened, "tree", [(key, {}, data) for key, data in tree_of(copy).items()])
        repository.commit(copy)


class World:
    """Some sites, one store."""

    def __init__(self, directory: Path, *, seed: int, steps: int, sites: int, hold_seconds: float = 1e9) -> None:
        self.directory = directory
        self.seed = seed
        self.steps = steps
        self.turns = Turns(seed)
        self.there = Checked()
        self.hold_seconds = hold_seconds
        load_or_create_secret(directory / "recipient.key")
        self.there.reader = self.open(MemoryStore(self.there), "reader")
        self.sites = [Site(f"site{number}", self) for number in range(sites)]

    def open(self, store: MemoryStore, name: str) -> Repository:
        options = Options(
            recipient_key=self.directory / "recipient.key", pack_bytes=5000, hold_seconds=self.hold_seconds
        )
        return Repository.open(store, state=self.directory / name, options=options)

    def run(self) -> Counter[str]:
        threads = [threading.Thread(target=site.run) for site in self.sites]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for site in self.sites:
            if site.problem is not None:
                raise site.problem
        return sum((site.did for site in self.sites), Counter[str]())

    def judge(self) -> None:
        """Nothing was ever lost, and all that is there reads as it was written; what nobody needs can go."""
        assert self.there.broken == []
        repository = self.there.reader
        assert repository is not None
        repository.learn()
        for copy in repository.commits.copies():
            assert [read_part(repository, copy, f"part{at}") for at in range(PARTS)] == content_of(copy)
            assert {key: data for key, _, data in read_entries(repository, copy, "tree")} == tree_of(copy)
            assert repository.verify(copy, progress=lambda _done: None).sound
        for site in self.sites:
            with self.open(MemoryStore(self.there), site.name) as last:
                for copy in last.open_copies():
                    last.abort(copy)
        repository.collect()
        needed = {f"{PACKS}{pack}" for commit in self.there.commits.values() for pack in commit.packs}
        left = {name for name in self.there.objects if name.startswith((PACKS, "doomed/", "holds/"))}
        marked = {f"{PACKS}{name.removeprefix('doomed/')}" for name in left if name.startswith("doomed/")}
        assert marked <= needed
        assert {name for name in left if name.startswith(PACKS)} == needed
        assert not [name for name in left if name.startswith("holds/")]
        repository.close()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_is_committed_is_ever_lost(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed=seed, steps=4000, sites=3)
    did = world.run()
    world.judge()
    assert did["write"] > 10
    assert did["collect"] > 10
    assert did["killed"] > 1
    assert did["kept"] > 10
    assert world.there.deleted_packs > 10
