"""One run from one seed: the world, chaos and work, quiet, judgement."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, NamedTuple

from hub.application import members, sagas
from schemas.events import (
    OperationAccepted,
    OperationCancelled,
    OperationFailed,
    OperationSucceeded,
    StepStarted,
    UndoStarted,
)
from schemas.subjects import HUB
from tests.simulation.fate import PROFILES, Fate
from tests.simulation.judge import judge
from tests.simulation.loop import SimLoop, Stuck
from tests.simulation.storage import about
from tests.simulation.strangers import Strangers
from tests.simulation.trace import LEGEND, Trace, ids_in
from tests.simulation.workload import Client
from tests.simulation.world import World

MOST_STEPS = 400_000
LOOK_SECONDS = 2.5
"""How often a hub looks after its sites and operations: a run spends less time with nothing to do."""


class Verdict(NamedTuple):
    """How a run went."""

    seed: int
    complaints: list[str]
    trace: Trace
    callbacks: int
    seconds: float
    outcomes: Counter[str]
    steps: Counter[str]
    """How often each step of a saga was taken."""
    hubs: int

    def report(self) -> str:
        """For a person: all that happened, what is wrong, and what happened to that."""
        told = [f"seed {self.seed}", *LEGEND, "", *self.trace.lines(), ""]
        for complaint in self.complaints:
            told += [f"COMPLAINT: {complaint}"]
            if ids := ids_in(complaint):
                told += [f"  what happened to {', '.join(ids)}:", *(f"  {line}" for line in self.trace.about(ids)), ""]
        told += [f"seed {self.seed}: {len(self.complaints)} complaints in {self.callbacks} callbacks"]
        told += [f"  - {each}" for each in self.complaints]
        return "\n".join(told)


class _Errors(logging.Handler):
    """Errors that the product logs are complaints."""

    def __init__(self, failures: list[str], trace: Trace) -> None:
        super().__init__(logging.WARNING)
        self._failures = failures
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {record.exc_info[1]!r}"
        self._trace.note("log", record.levelname, message)
        if record.levelno >= logging.ERROR:
            self._failures.append(f"logged: {message}")


Story = Callable[[World, Client], Coroutine[Any, Any, None]]


async def chaos(world: World, client: Client) -> None:
    """What a seed makes of it."""
    world.plan_faults()
    strangers = Strangers(world, client.seed)
    about = world.loop.root.spawn(strangers.play())
    await client.play()
    await about


def simulate(seed: int, story: Story = chaos) -> Verdict:
    """Run ``seed``. The same seed gives the same run, callback by callback.

    With a ``story`` of its own nothing goes wrong but what the story does.
    """
    loop = SimLoop(Random(f"{seed}-schedule"), most_steps=MOST_STEPS)
    trace = Trace(loop.time)
    fate = Fate(seed, trace)
    if story is not chaos:
        fate.profile = PROFILES[0]
        fate.calm = True
    errors = _Errors(loop.failures, trace)
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("hub", "site_agent", "brokers", "asyncio")}
    root.addHandler(errors)
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    enabled = gc.isenabled()
    gc.disable()
    paces = members.CHECK_SECONDS, sagas.SWEEP_SECONDS
    members.CHECK_SECONDS = sagas.SWEEP_SECONDS = LOOK_SECONDS
    try:
        return loop.root.context.copy().run(_run, seed, loop, fate, trace, story)
    finally:
        members.CHECK_SECONDS, sagas.SWEEP_SECONDS = paces
        root.removeHandler(errors)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        loop.close()
        if enabled:
            gc.enable()


def let_go() -> None:
    """Free what past runs left: a hub's start sets what it read aside from the collector, and here hubs die."""
    gc.unfreeze()
    gc.collect()


def _run(seed: int, loop: SimLoop, fate: Fate, trace: Trace, story: Story) -> Verdict:
    world = World(loop, fate, trace)
    client = Client(world, seed)
    complaints: list[str] = []

    async def live() -> None:
        await world.begin()
        await story(world, client)
        await world.settle()
        await client.run_what_was_found()
        await world.settle()

    async def leave() -> None:
        world.end()
        await asyncio.sleep(0)

    try:
        loop.run(live())
        complaints = judge(world, client)
    except (KeyError, AssertionError) as error:
        complaints = [f"the record makes no sense: {error!r}", *loop.failures]
    except Stuck as stuck:
        complaints = [f"stuck: {stuck}", *loop.failures, *world.busy()]
    steps, seconds = loop.steps, world.elapsed
    loop.rest()
    loop.run(leave())
    outcomes, taken = _told(world)
    return Verdict(seed, complaints, trace, steps, seconds, outcomes, taken, len(world.hubs))


def _told(world: World) -> tuple[Counter[str], Counter[str]]:
    """How operations ended, and how often each step of theirs was taken; those never taken too, with 0."""
    outcomes: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for writer, stream in world.own.items():
        where = "hub" if writer == HUB else "site"
        for (aggregate, id), sequences in stream.of.items():
            if aggregate != "operation":
                continue
            found = [stream.read(sequence).event for sequence in sequences]
            accepted = found[0]
            if not isinstance(accepted, OperationAccepted):
                continue
            for step in accepted.steps:
                taken[f"{accepted.kind}: {step.action}"] += 0
                if step.undo:
                    taken[f"{accepted.kind}: undo {step.action}"] += 0
            for event in found:
                if isinstance(event, StepStarted | UndoStarted) or not hasattr(event, "step"):
                    taken[about(stream, id, event)] += 1
            end = next((_ENDS[type(event)] for event in found if type(event) in _ENDS), "not ended")
            outcomes[f"{where} {accepted.kind} {end}"] += 1
    return outcomes, taken


_ENDS: dict[type, str] = {
    OperationSucceeded: "succeeded",
    OperationFailed: "failed",
    OperationCancelled: "cancelled",
}
