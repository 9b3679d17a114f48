"""A machine's program that is started, killed and started again. What it keeps on disk is its caller's to hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from schemas.problems import CalqueError
from tests.simulation.fate import Fate
from tests.simulation.loop import START_SECONDS, Process, SimLoop

LONG_AWAY_SECONDS = 90.0
"""Longer than writers are held, than an acknowledgement is waited for, and until a broker counts as lost."""
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Node:
    """``boot`` starts the program in a process and returns when it runs; the supervisor starts it anew after a crash.

    ``offset`` is by how many seconds its wall clock is wrong.
    """

    def __init__(self, loop: SimLoop, fate: Fate, name: str, boot: Callable[[Process], Awaitable[None]]) -> None:
        self.name = name
        self.offset = 0.0
        self.runs = 0
        self.ready = False
        self.gone = False
        """Killed for good."""
        self._loop = loop
        self._fate = fate
        self._boot = boot
        self.process = Process(loop, name)
        self.process.dead = True

    @property
    def kind(self) -> str:
        """What it is, wherever it runs and however many there are."""
        return "hub" if self.name.startswith("hub") else self.name.rpartition("/")[2]

    def now(self) -> datetime:
        """Its wall clock."""
        return EPOCH + timedelta(seconds=self._loop.time() - START_SECONDS + self.offset)

    def start(self) -> None:
        """Begin a run."""
        if self.gone:
            return
        self.runs += 1
        self.ready = False
        self.process = Process(self._loop, self.name)
        self.process.on_fuse = self.kill
        self._fate.trace.note(self.name, "starts", f"(run {self.runs})")
        self.process.spawn(self._begin(self.process), f"{self.name} main")

    def kill(self) -> None:
        """SIGKILL; the supervisor comes after a while."""
        if self.process.dead or self.process.doomed:
            return
        self._fate.trace.hit("killed", self.kind, who=self.name)
        away = self._fate.faults.uniform(0.3, 8.0) if self._fate.faults.random() < 0.85 else LONG_AWAY_SECONDS
        self.restart(away)

    def kill_after(self, steps: int) -> None:
        """Kill it between two of its callbacks."""
        if not self.process.dead and not self.process.fuse:
            self._fate.trace.hit("killed between", self.kind, who=self.name)
            self.process.fuse = steps

    def kill_for_good(self) -> None:
        """SIGKILL, and nobody starts it again."""
        if self.gone:
            return
        self._fate.trace.hit("killed for good", self.kind, who=self.name)
        self.gone = True
        self.process.kill()

    def freeze(self, seconds: float) -> None:
        """It stands still for a while."""
        if not self.process.dead and not self.process.frozen:
            self._fate.trace.hit("frozen", self.kind, who=self.name)
            self._loop.freeze(self.process)
            self._loop.at(seconds, self._loop.unfreeze, self.process)

    def cut_off(self, seconds: float) -> None:
        """It reaches no server for a while, and goes on."""
        if not self.process.dead and not self.process.cut_off:
            self._fate.trace.hit("cut off", self.kind, who=self.name)
            self.process.cut_off = True
            self._loop.at(seconds, self._connect, self.process)

    def _connect(self, process: Process) -> None:
        if process.cut_off and not process.dead:
            self._fate.trace.note(self.name, "is connected again")
        process.cut_off = False

    def heal(self) -> None:
        """Nothing is wrong with it any more."""
        self.process.fuse = 0
        self._connect(self.process)
        self._loop.unfreeze(self.process)

    def restart(self, after: float) -> None:
        """End this run and begin another; nothing more for one that ends already."""
        if self.process.doomed:
            return
        self.ready = False
        self.process.kill()
        self._loop.at(after, self.start)

    async def _begin(self, process: Process) -> None:
        try:
            await self._boot(process)
            self.ready = True
            self._fate.trace.note(self.name, "is ready")
        except CalqueError as error:
            self._fate.trace.note(self.name, "can't start:", error)
            self.restart(1.0)
