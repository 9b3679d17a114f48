"""Writers and collectors on one repository for thousands of steps, each call of the store a step, in an order that
follows from a seed: stalled, killed at any write, with clocks that jump. At every step, whatever is committed keeps
every pack that it needs; who writes can commit; in the end, what nobody needs is gone.

To see one seed again: ``PYTHONHASHSEED=0 python -m pytest ... -k "seed"``; what a failure prints ends with the last
calls of all.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.repository.errors import (
    AlreadyCommitted,
    Conflict,
    CopyNotFound,
    CorruptChunk,
    IncompleteCopy,
    KeptGone,
)
from brokers.repository.format1.holds import HOLDS
from brokers.repository.format1.repository import Repository
from brokers.repository.manifest import CopyInfo
from tests.property.repository.processes import HOLD_SECONDS, Crash, Crashed, Process, World
from tests.property.repository.turns import Pace, Turns
from tests.property.repository.watching import Content, chunks_of
from tests.unit.repository.copies import read_entries, read_part, write_entries, write_on_top, write_part
from tests.unit.repository.memory_store import MemoryStore

POOL = [random.Random(seed).randbytes(2000) for seed in range(20)]
PARTS = ("part0", "part1", "part2")
DAY = 86400.0
FOREVER = 1e12
STALLED = Pace(often=0.2, late=600)
PACES = {"slow": Pace(often=0.1, late=2000), "tidy": STALLED, "neat": STALLED}
"""Collectors are late again and again: between what they saw and what they do about it, much is written."""
TOLD = 40
"""How many of the last calls a failure tells."""


def content_of(copy: str, part: str) -> Content:
    """What a part holds follows from its copy; copies of near numbers share some of it."""
    number = int(copy.partition("-")[2])
    if part == "tree":
        return {str(at % len(POOL)): POOL[at % len(POOL)][:700] for at in range(number, number + 4)}
    return POOL[(number + PARTS.index(part)) % len(POOL)]


class Site:
    """A process that does what it is for again and again, dies now and then, and starts again with its state."""

    def __init__(self, stage: Stage, name: str, *, weights: dict[str, int]) -> None:
        self.stage = stage
        self.process: Process = stage.world.process(name)
        self.random = random.Random(f"{stage.seed} {name}")
        self.did: Counter[str] = Counter()
        self._weights = weights

    def run(self) -> None:
        while self.stage.going:
            crash = Crash(self.random.randrange(5, 400), self.random.choice(["before", "after"]))
            try:
                with self.process.doing(crash, None):
                    while self.stage.going:
                        self._one_deed(self.process.running())
            except Crashed:
                self.did["killed"] += 1

    def _one_deed(self, repository: Repository) -> None:
        (deed,) = self.random.choices(list(self._weights), list(self._weights.values()))
        try:
            if deed == "write":
                self._write(repository)
            elif deed == "collect":
                assert repository.collect().blocked is None
            elif deed == "compact":
                repository.collect(compact=True)
            elif deed == "delete":
                if copies := repository.commits.copies():
                    repository.delete(self.random.choice(copies))
            else:
                repository.abort(self._copy())
        except (AlreadyCommitted, Conflict, CopyNotFound, KeptGone) as error:
            # Not an accident: what it was told when it was too late for its copy.
            deed = f"{deed}: {error.code}"
        self.did[deed] += 1

    def _copy(self) -> str:
        return f"{self.process.name}-{self.random.randrange(len(POOL))}"

    def _write(self, repository: Repository) -> None:
        copy = self._copy()
        with self.process.writing(copy):
            sealed = repository.open_write(copy, CopyInfo()).sealed()
            try:
                for part in PARTS:
                    if part not in sealed:
                        self._write_stream(repository, copy, part)
                if "tree" not in sealed:
                    self._write_tree(repository, copy)
                repository.commit(copy)
            except IncompleteCopy:
                # It slept for longer than its holds last: what it lacks is written again.
                assert self.stage.world.watch.excused(copy)
                self.did["overslept"] += 1
                self.process.lost(copy)

    def _write_stream(self, repository: Repository, copy: str, part: str) -> None:
        content = content_of(copy, part)
        assert isinstance(content, bytes)
        self.process.sealed(copy, chunks_of(write_part(repository.writing(copy), part, content)))

    def _write_tree(self, repository: Repository, copy: str) -> None:
        entries, copies = content_of(copy, "tree"), repository.commits.copies()
        assert not isinstance(entries, bytes)
        opened = repository.writing(copy)
        if copies and self.random.random() < 0.7:
            parent = self.random.choice(copies)
            try:
                self.did["kept"] += write_on_top(repository, opened, "tree", entries, parent=parent)
            except CorruptChunk as error:
                # The parent's writer slept for weeks, and has not yet taken it back.
                assert self.stage.world.watch.excused(parent)
                raise KeptGone(str(error), copy=parent) from error
        else:
            write_entries(opened, "tree", [(key, {}, data) for key, data in entries.items()])


class Stage:
    """Three writers, of which one is slow, and two that only collect."""

    def __init__(self, directory: Path, *, seed: int, steps: int, hold_seconds: float = FOREVER) -> None:
        self.seed = seed
        self.steps = steps
        self.turns = Turns(seed)
        self.store = MemoryStore()
        self.world = World(directory, self.store, content=content_of)
        self.world.hold_seconds = hold_seconds
        self.overslept: set[str] = set()
        self.jumps = 0
        self._calls: list[str] = []

    @property
    def going(self) -> bool:
        return self.turns.passed < self.steps

    def play(self) -> Counter[str]:
        with self.world:
            self.world.watch.keys = self.world.process("first").running().keys
            self.world.watch.excused = lambda copy: copy in self.overslept
            self.world.turn = self._turn
            writes = {"write": 6, "delete": 6, "collect": 1, "abort": 1}
            collects = {"collect": 4, "compact": 1}
            sites = [Site(self, name, weights=writes) for name in ("north", "south", "slow")]
            sites += [Site(self, name, weights=collects) for name in ("tidy", "neat")]
            try:
                self.turns.run({site.process.name: site.run for site in sites}, paces=PACES)
                self._judge()
            except BaseException as error:
                error.add_note("\n".join([f"seed {self.seed}", *self._calls[-TOLD:]]))
                raise
            return sum((site.did for site in sites), Counter[str]())

    def _turn(self, process: Process, name: str) -> None:
        self.turns.pass_on(process.name)
        if not process.crashed:
            self._calls.append(f"{self.turns.passed}: {process.name} {name}")
        if self.turns.random.random() < 0.005:
            self._jump()
        assert self.world.watch.broken == []

    def _jump(self) -> None:
        """Clocks of processes jump both ways; the store's jumps ahead, sometimes for longer than a hold lasts."""
        self.jumps += 1
        self.world.skew = self.turns.random.uniform(-30 * DAY, 30 * DAY)
        seconds = self.turns.random.choice([1.0, DAY, 15 * DAY])
        self.world.jump(seconds)
        if self.world.hold_seconds < FOREVER:
            # All that are open: their holds may be as old as that together.
            for each in self.world.processes.values():
                self.overslept |= {path.parent.name for path in each.directory.glob("open/*/open.json")}

    def _judge(self) -> None:
        """All that is there reads as it was written; what nobody needs goes."""
        world, watch = self.world, self.world.watch
        for name, process in list(world.processes.items()):
            process.end()
            with last_words(process):
                for copy in process.running().open_copies():
                    process.running().abort(copy)
            assert name
        last = world.process("last").running()
        for copy in sorted(watch.copies()):
            if copy in self.overslept and not last.verify(copy, progress=lambda _done: None).sound:
                last.delete(copy)  # its writer slept for weeks and died before it could take it back
                continue
            for part in last.committed(copy).parts:
                assert read(last, copy, part.name) == content_of(copy, part.name)
            assert last.verify(copy, progress=lambda _done: None).sound
        last.collect()
        assert watch.broken == []
        assert watch.packs == watch.needed()
        assert watch.marks <= watch.packs
        assert not {name for name in watch.others if name.startswith(HOLDS)}


@contextlib.contextmanager
def last_words(process: Process) -> Iterator[None]:
    """The process starts a last time, and ends."""
    try:
        yield
    finally:
        process.end()


def read(repository: Repository, copy: str, part: str) -> Content:
    if part == "tree":
        return {key: data for key, _, data in read_entries(repository, copy, part)}
    return read_part(repository, copy, part)


def check(stage: Stage) -> None:
    did = stage.play()
    assert did["write"] > stage.steps / 300
    assert did["collect"] > stage.steps / 1000
    assert did["killed"] > 1
    assert did["kept"] > 1
    assert stage.jumps > 1
    assert stage.world.watch.deleted_packs > stage.steps / 400


@pytest.mark.parametrize("seed", range(2))
def test_nothing_that_is_needed_is_ever_lost(tmp_path: Path, seed: int) -> None:
    check(Stage(tmp_path, seed=seed, steps=4000))


def test_who_sleeps_for_weeks_loses_no_more_than_what_it_was_about_to_write(tmp_path: Path) -> None:
    check(Stage(tmp_path, seed=100, steps=4000, hold_seconds=HOLD_SECONDS))


def test_a_seed_gives_the_same_story_again(tmp_path: Path) -> None:
    stages = []
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        stages.append(Stage(directory, seed=7, steps=500))
        stages[-1].play()
    assert stages[0].turns.order == stages[1].turns.order


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_many_seeds(tmp_path: Path) -> None:
    for seed in range(1000, 1100):
        directory = tmp_path / str(seed)
        directory.mkdir()
        check(Stage(directory, seed=seed, steps=6000, hold_seconds=HOLD_SECONDS if seed % 2 else FOREVER))
