"""Any story of some processes on one repository, a crash at any write, something else in the middle of any call: the
real code of format 1 on a store in memory and on one in a directory.

What must hold: a committed copy is whole and byte-equal from the moment at which its commit object is there, at every
change of the store; what is not committed is not there; a copy whose parts were all taken can be committed, whatever
was collected meanwhile; a chunk of a sealed part is not sent again after a crash; what nobody needs goes in the end.
"""

from __future__ import annotations

import contextlib
import functools
import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from brokers.filesystem.objects import DirectoryStore
from brokers.repository.errors import AlreadyCommitted, Conflict, CopyNotFound, IncompleteCopy, KeptGone
from brokers.repository.format1.holds import HOLDS
from brokers.repository.format1.repository import Repository
from brokers.repository.manifest import CopyInfo
from brokers.repository.objects import ObjectStore
from brokers.repository.retention import CopyLocked
from tests.property.repository.processes import HOLD_SECONDS, Crash, Crashed, Process, World
from tests.property.repository.watching import Content, chunks_of
from tests.unit.repository.copies import memory_disk, read_entries, read_part, write_entries, write_on_top, write_part
from tests.unit.repository.memory_store import MemoryStore

POOL = [random.Random(seed).randbytes(200 + 97 * seed) for seed in range(12)]
PARTS = ("dump", "more", "tree")
COPIES = ["c0", "c1", "c2"]
PROCESSES = st.sampled_from(["north", "south"])
COPY = st.sampled_from(COPIES)
CRASH = st.none() | st.builds(
    Crash, st.sampled_from([1, 2, 3, 4, 5, 6, 8, 11, 15, 20]), st.sampled_from(["before", "torn", "after"])
)
Meanwhile = tuple[int, str, str]
MEANWHILE = st.tuples(
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33, 40, 60]),
    st.sampled_from(["collect", "delete", "commit", "save", "compact", "nothing"]),
    COPY,
)
"""At which call of a deed the other process does what, with which copy."""
OWN = "own"
"""The operation that commits."""
TOO_LATE = (AlreadyCommitted, Conflict, CopyNotFound, KeptGone)
"""What a process is told when another was faster."""


def content_of(copy: str, part: str) -> Content:
    """What a part holds follows from its copy; copies of near numbers share much."""
    number = int(copy[1:])
    if part == "dump":
        return POOL[number] + POOL[number + 1]
    if part == "more":
        return POOL[number + 3]
    return {str(at): POOL[at] for at in range(number, number + 6)}


def write(repository: Repository, copy: str, part: str, *, parent: str | None = None) -> set[bytes]:
    """Writes a part whole; the chunks that lie in the repository then."""
    opened = repository.open_write(copy, CopyInfo())
    content = content_of(copy, part)
    if isinstance(content, bytes):
        return chunks_of(write_part(opened, part, content, block=500))
    if parent is not None:
        with contextlib.suppress(KeptGone, CopyNotFound):
            write_on_top(repository, opened, part, content, parent=parent)
            return set()
    return chunks_of(write_entries(opened, part, [(key, {}, data) for key, data in content.items()]))


class Story(RuleBasedStateMachine):
    """Two processes on a store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=memory_disk())))
        self.world = self._stack.enter_context(World(directory, self.store(directory), content=content_of))
        self.watch = self.world.watch
        self.watch.keys = self.world.process("reader").running().keys
        self.watch.excused = lambda copy: copy in self.overslept
        self.acknowledged: set[str] = set()
        """Copies that somebody was told are committed, and nobody began to delete since."""
        self.gone: set[str] = set()
        """Copies that somebody was told are deleted, and nobody began to commit since."""
        self.overslept: set[str] = set()
        """Copies that were open when more time passed than a hold lasts."""
        self._deleting: set[str] = set()
        self._save(self.world.process("north"), copy="c0")
        self._write(self.world.process("south"), copy="c1", part="tree")

    def store(self, directory: Path) -> ObjectStore:
        del directory
        return MemoryStore()

    def teardown(self) -> None:
        try:
            self._judge()
        finally:
            self._stack.close()

    # --- what happens

    @rule(process=PROCESSES, copy=COPY, parent=st.none() | COPY, crash=CRASH, meanwhile=MEANWHILE)
    def save(self, process: str, copy: str, parent: str | None, crash: Crash | None, meanwhile: Meanwhile) -> None:
        self._do(process, functools.partial(self._save, copy=copy, parent=parent), crash, meanwhile)

    @rule(process=PROCESSES, copy=COPY, part=st.sampled_from(PARTS), crash=CRASH, meanwhile=MEANWHILE)
    def write(self, process: str, copy: str, part: str, crash: Crash | None, meanwhile: Meanwhile) -> None:
        """A part, also one that is sealed already: all of it comes again, and none of it is sent again."""
        self._do(process, functools.partial(self._write, copy=copy, part=part), crash, meanwhile)

    @rule(process=PROCESSES, copy=COPY, crash=CRASH, meanwhile=MEANWHILE)
    def commit(self, process: str, copy: str, crash: Crash | None, meanwhile: Meanwhile) -> None:
        self._do(process, functools.partial(self._commit, copy=copy), crash, meanwhile)

    @rule(process=PROCESSES, copy=COPY, crash=CRASH, meanwhile=MEANWHILE)
    def abort(self, process: str, copy: str, crash: Crash | None, meanwhile: Meanwhile) -> None:
        self._do(process, functools.partial(self._abort, copy=copy), crash, meanwhile)

    @rule(process=PROCESSES, copy=COPY, crash=CRASH, meanwhile=MEANWHILE)
    def delete(self, process: str, copy: str, crash: Crash | None, meanwhile: Meanwhile) -> None:
        self._do(process, functools.partial(self._delete, copy=copy), crash, meanwhile)

    @rule(process=PROCESSES, copy=COPY, crash=CRASH, meanwhile=MEANWHILE)
    def take_back(self, process: str, copy: str, crash: Crash | None, meanwhile: Meanwhile) -> None:
        """The operation that committed a copy undoes that, also while it is locked."""
        self._do(process, functools.partial(self._delete, copy=copy, operation=OWN), crash, meanwhile)

    @rule(days=st.sampled_from([0, 2, 40]))
    def retention_changes(self, days: int) -> None:
        """For processes that start from now on."""
        self.world.retention_seconds = days * 86400.0

    @rule(process=PROCESSES, how=st.sampled_from(["collect", "compact", "repair"]), crash=CRASH, meanwhile=MEANWHILE)
    def tidy(self, process: str, how: str, crash: Crash | None, meanwhile: Meanwhile) -> None:
        self._do(
            process, {"collect": self._collect, "compact": self._compact, "repair": self._repair}[how], crash, meanwhile
        )

    @rule(process=PROCESSES, crash=CRASH)
    def restart(self, process: str, crash: Crash | None) -> None:
        """It is killed, and starts again."""
        self.world.process(process).end()
        self._do(process, lambda _process: None, crash, None)

    @rule(process=PROCESSES)
    def stop(self, process: str) -> None:
        """It ends as it should."""
        running = self.world.process(process)
        if running.repository is not None:
            running.repository.close()
            running.repository = None

    @rule(copy=COPY)
    def verify(self, copy: str) -> None:
        if copy in self.acknowledged:
            reader = self.world.process("reader").running()
            reader.learn()
            assert reader.verify(copy, progress=lambda _done: None).sound
            assert read(reader, copy) == {part: content_of(copy, part) for part in read(reader, copy)}

    @rule(days=st.sampled_from([1, 15]))
    def time_passes(self, days: int) -> None:
        """Longer than a hold lasts, sometimes: whoever wrote then may have to write again, and nothing worse."""
        self.world.jump(days * 86400.0)
        if days * 86400.0 > HOLD_SECONDS:
            for process in self.world.processes.values():
                self.overslept |= {path.parent.name for path in process.directory.glob("open/*/open.json")}

    # --- what must hold

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.watch.broken == []

    @invariant()
    def committed_is_what_was_committed(self) -> None:
        there = self.watch.copies()
        assert self.acknowledged <= there
        assert not self.gone & there

    # --- how it is done

    def _do(
        self,
        name: str,
        deed: Callable[[Process], None],
        crash: Crash | None,
        meanwhile: Meanwhile | None,
    ) -> None:
        process = self.world.process(name)
        other: tuple[int, Callable[[], None]] | None = None
        if meanwhile is not None and meanwhile[1] != "nothing":
            at, what, copy = meanwhile
            who = "south" if name == "north" else "north"
            other = (at, lambda: self._do(who, self._other(what, copy), None, None))
        with process.doing(crash, other):
            try:
                process.running()
                deed(process)
            except Crashed:
                assert process.crashed
            except TOO_LATE:
                return

    def _other(self, what: str, copy: str) -> Callable[[Process], None]:
        if what == "collect":
            return self._collect
        if what == "compact":
            return self._compact
        deeds: Mapping[str, Callable[..., None]] = {"delete": self._delete, "commit": self._commit, "save": self._save}
        return functools.partial(deeds[what], copy=copy)

    def _save(self, process: Process, *, copy: str, parent: str | None = None) -> None:
        repository = process.running()
        process.begins(copy)
        sealed = repository.open_write(copy, CopyInfo()).sealed()
        for part in PARTS:
            if part not in sealed:
                self._write(process, copy=copy, part=part, parent=parent)
        self._commit(process, copy=copy)

    def _write(self, process: Process, *, copy: str, part: str, parent: str | None = None) -> None:
        with process.writing(copy):
            process.sealed(copy, write(process.running(), copy, part, parent=parent))

    def _commit(self, process: Process, *, copy: str) -> None:
        """Commits this copy, or another one that is open."""
        repository = process.running()
        opened = repository.open_copies()
        copy = copy if copy in opened or not opened else opened[0]
        self.gone.discard(copy)
        with process.writing(copy):
            sealed = repository.writing(copy).sealed() if copy in opened else {}
            try:
                repository.commit(copy, operation=OWN)
            except IncompleteCopy:
                # Nothing was written of it yet, or it was taken for abandoned: then it is written again.
                assert not sealed or copy in self.overslept
                process.lost(copy)
                return
            finally:
                self.gone.discard(copy)
        if copy in self.watch.copies() - self._deleting:
            self.acknowledged.add(copy)

    def _abort(self, process: Process, *, copy: str) -> None:
        process.running().abort(copy)

    def _delete(self, process: Process, *, copy: str, operation: str = "") -> None:
        """Deletes this copy, or another one that is there."""
        there = sorted(self.watch.copies())
        copy = copy if copy in there or not there else there[0]
        acknowledged = copy in self.acknowledged
        self.acknowledged.discard(copy)
        self.gone.add(copy)
        self._deleting.add(copy)
        if operation:
            self.watch.taken_back.add(copy)
        try:
            process.running().delete(copy, operation=operation)
        except CopyLocked:
            # As if nobody had asked: it is there, unless somebody else took it back meanwhile.
            assert not operation
            self.gone.discard(copy)
            if acknowledged and copy in self.watch.copies():
                self.acknowledged.add(copy)
        except Crashed:
            self.gone.discard(copy)
            raise
        finally:
            self._deleting.discard(copy)
            if operation:
                self.watch.taken_back.discard(copy)

    def _collect(self, process: Process) -> None:
        assert process.running().collect().blocked is None

    def _compact(self, process: Process) -> None:
        process.running().collect(compact=True)

    def _repair(self, process: Process) -> None:
        process.running().repair()

    def _judge(self) -> None:
        """What is there reads as it was written, by who has read all of it for the first time; what nobody needs is
        collected."""
        for name, process in self.world.processes.items():
            process.end()
            if name != "reader":
                repository = process.running()
                for copy in repository.open_copies():
                    with contextlib.suppress(Conflict):
                        repository.abort(copy)
        last = self.world.process("last").running()
        for copy in self.watch.copies() & self.overslept - self.acknowledged:
            self.watch.taken_back.add(copy)
            last.delete(copy, operation=OWN)
        last.collect()
        for copy in self.watch.copies():
            assert read(last, copy) == {part: content_of(copy, part) for part in read(last, copy)}
            assert last.verify(copy, progress=lambda _done: None).sound
        assert last.repair(read_all=True).damaged == ()
        last.collect()
        assert self.watch.broken == []
        assert self.watch.packs == self.watch.needed()
        assert self.watch.marks <= self.watch.packs
        assert not {name for name in self.watch.others if name.startswith(HOLDS)}


class StoryInADirectory(Story):
    """The same on a directory, where a write may be torn."""

    def store(self, directory: Path) -> ObjectStore:
        return DirectoryStore(directory / "store")


def read(repository: Repository, copy: str) -> dict[str, Content]:
    """All parts of a copy."""
    found: dict[str, Content] = {}
    for part in repository.committed(copy).parts:
        if part.is_entries:
            found[part.name] = {key: data for key, _, data in read_entries(repository, copy, part.name)}
        else:
            found[part.name] = read_part(repository, copy, part.name)
    return found


def tell(machine: type[Story], *, stories: int, deeds: int) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=stories, stateful_step_count=deeds, deadline=None)
    )


def test_any_story_in_memory() -> None:
    tell(Story, stories=20, deeds=25)


def test_any_story_in_a_directory() -> None:
    tell(StoryInADirectory, stories=8, deeds=20)


def test_a_repair_let_go_of_what_an_open_copy_holds_that_another_process_had_committed_meanwhile() -> None:
    story = Story()
    try:
        story.save("north", "c1", None, None, None)
        story.tidy("south", "repair", None, None)
        story.delete("north", "c1", None, None)
        story.tidy("north", "collect", None, None)
        story.commit("south", "c1", None, None)
    finally:
        story.teardown()


@pytest.mark.parametrize("call", range(1, 40))
def test_a_copy_that_slept_too_long_is_committed_whole_or_not_at_all_beside_a_collector(call: int) -> None:
    story = Story()
    try:
        story.time_passes(15)
        story.tidy("north", "collect", None, (call, "commit", "c1"))
        story.verify("c1")
    finally:
        story.teardown()


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_many_stories_in_memory() -> None:
    tell(Story, stories=1500, deeds=50)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_many_stories_in_a_directory() -> None:
    tell(StoryInADirectory, stories=300, deeds=40)
