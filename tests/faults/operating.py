"""One operation on the stack with one kill in it, and the judgement of both."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp

from bus.events import Recorded
from hub.client.errors import ClientError, HubUnreachableError
from hub.client.started import Started
from schemas import events as ev
from schemas.ids import new_id
from site_agent.domain import plans
from tests.e2e.stack import until
from tests.faults.armed import Arms
from tests.faults.cells import (
    AFTER,
    FORWARDED_KINDS,
    SITE_SERVERS,
    SOURCE,
    TARGET,
    UNDONE_KINDS,
    Cell,
    every_cell,
)
from tests.faults.matrix import Outcome
from tests.faults.outcomes import Cells
from tests.faults.world import SITES, World

END_SECONDS: Final = 100.0
SETTLE_SECONDS: Final = 20.0
ASKS: Final = 4
MOST_WRONG: Final = 5

Asking = Callable[[str], Awaitable[Started]]
Checking = Callable[[ev.Event], Awaitable[None]]
ENDS = ev.OperationSucceeded | ev.OperationFailed | ev.OperationCancelled


class Operations:
    """Runs operations, and settles the cells whose kills are in them."""

    def __init__(self, world: World, cells: Cells) -> None:
        self._world = world
        self._cells = cells
        self._arms = Arms(world.stack.home)
        self._known: set[str] = set()
        self._commands: dict[str, str] = {}
        self._brokers: dict[str, int] = {}
        self.wrong: list[str] = []
        """What did not hold of operations in which nobody was killed."""

    async def begin(self) -> None:
        """Note what the stack is like while it is whole."""
        self._brokers = {site.name: len(site.brokers) for site in await self._world.client.sites()}

    async def run(
        self,
        kind: str,
        site: str | None,
        cell: Cell | None,
        ask: Asking,
        check: Checking,
    ) -> ev.Event | None:
        """One operation, with the kill of ``cell`` in it; how it ended. What is wrong with it is the cell's."""
        command = new_id()
        self._commands[command] = UNDONE_KINDS.get(kind, kind)
        label = cell.label(command) if cell is not None else ""
        ended: ev.Event | None = None
        try:
            await self._brokers_back(site)
            began, mark = time.monotonic(), len(self._world.record.events)
            if cell is not None:
                self._arms.arm(label, part=_part(cell, site))
                if cell.fails:
                    self._arms.arm(f"{command}/{cell.fails}/agent/fail")
            await self._ask(command, ask)
            ended = await self._end(command)
            seconds = time.monotonic() - began
            if cell is not None:
                assert self._arms.fired(label), f"nobody came by {label}"
                succeeded = isinstance(ended, ev.OperationSucceeded)
                assert succeeded != bool(cell.fails) or cell.may_fail, f"it ended otherwise: {ended}"
                if cell.alone or cell.server:
                    await self._world.whole()  # what is asked next has nothing to do with this kill
            await check(ended)
            await self._judge(site)
            if cell is not None:
                self._cells.settle(cell, self._outcome(cell, command, ended, seconds, mark))
        except (AssertionError, ClientError, aiohttp.ClientError, TimeoutError) as error:
            if cell is None:
                self.wrong.append(f"{kind} without a kill ({command}): {error}")
                if len(self.wrong) > MOST_WRONG:
                    raise
                return ended
            self._arms.disarm(label)
            self._cells.spoil(cell, AssertionError(f"{cell} ({command}): {error}"))
        return ended

    async def _brokers_back(self, site: str | None) -> None:
        """Wait until the site that is meant, or each, knows of all of its brokers: without one it takes no command."""

        async def back() -> bool:
            try:
                found = {each.name: len(each.brokers) for each in await self._world.client.sites()}
            except ClientError:
                return False
            return all(found.get(each, 0) >= self._brokers[each] for each in ([site] if site is not None else SITES))

        await until(back, seconds=END_SECONDS, what=f"the brokers of {site or 'both sites'}")

    async def _ask(self, command: str, ask: Asking) -> None:
        """Send the command until it is taken: the hub, or what it says it with, may have died of it."""
        events = self._world.record.events
        for _ in range(ASKS):
            try:
                await ask(command)
                return
            except HubUnreachableError:
                await self._world.whole()
                if any(command in (each.id, each.envelope.causationid) for each in events):
                    return

    async def _end(self, operation: str) -> ev.Event:
        """How an operation ended, and all that it started, clean-up included."""

        def ended(recorded: Recorded) -> bool:
            return recorded.id == operation and isinstance(recorded.event, ENDS)

        found = await self._world.record.wait(ended, what=f"the end of {operation}", seconds=END_SECONDS)
        assert isinstance(found.event, ev.Event)
        if getattr(found.event, "cleanup", "none") == "pending":

            def cleaned(recorded: Recorded) -> bool:
                return recorded.id == operation and isinstance(recorded.event, ev.OperationCleanedUp)

            await self._world.record.wait(cleaned, what=f"the clean-up of {operation}", seconds=END_SECONDS)
        return found.event

    async def _judge(self, site: str | None) -> None:
        """What is wrong and was not told before."""
        complaints: list[str] = []

        async def holds() -> bool:
            found = [
                complaint
                for each in ([site] if site is not None else SITES)
                for complaint in await self._world.checker.complaints_at(each, self._world.record.events)
            ]
            complaints[:] = [complaint for complaint in found if complaint not in self._known]
            return not complaints

        try:
            await until(holds, seconds=SETTLE_SECONDS, what="a sound history")
        except AssertionError:
            self._known.update(complaints)
            raise AssertionError("\n".join(["the history does not hold:", *complaints])) from None

    def _outcome(self, cell: Cell, command: str, ended: ev.Event, seconds: float, mark: int) -> Outcome:
        attempts = 1
        for recorded in self._world.record.events[mark:]:
            event = recorded.event
            mine = recorded.aggregate == "operation" and recorded.id == cell.operation(command)
            if mine and isinstance(event, ev.StepStarted) and event.step == cell.step:
                attempts = max(attempts, event.attempt)
        label = cell.label(command).rpartition("/")[0]
        times = self._arms.passed().count(f"{label}/before")
        problem = ended.problem.sentence() if isinstance(ended, ev.OperationFailed) else ""
        return Outcome(
            state=_state(ended),
            attempts=attempts,
            asked=times,
            cleanup=str(getattr(ended, "cleanup", "none")),
            seconds=round(seconds, 1),
            problem=problem,
        )

    def left_out(self) -> set[str]:
        """Whoever came by a moment of an operation that was run here, for which there is no cell."""
        cells = {(cell.kind, cell.label("")) for cell in every_cell()}
        found: set[str] = set()
        for label in self._arms.passed():
            command, _, place = label.partition("/")
            kind = self._commands.get(command)
            place = place.replace(f"-{SOURCE}/1/", f"-{TARGET}/1/")
            if kind is None or (kind, f"/{place}") in cells:
                continue
            if place.startswith(f"{plans.ARM}-"):
                continue
            if "-undo/" in place:
                after = f"/{place.rpartition('/')[0]}/{AFTER}"
                if f"{kind} undone" in UNDONE_KINDS and (f"{kind} undone", after) not in cells:
                    found.add(f"{kind} undone: {place}")
                continue
            # What sites do for an operation of the hub has its cells once.
            others = (("run", f"run-{TARGET}/1"), ("transfer image", ""), *((each, "") for each in FORWARDED_KINDS))
            if not any((other, f"/{place.removeprefix(inside).strip('/')}") in cells for other, inside in others):
                found.add(f"{kind}: {place}")
        return found


def _part(cell: Cell, site: str | None) -> str:
    """The part of the stack that dies, when it is not who comes by. Of an operation on both sites, the target's."""
    return f"{site or TARGET}-{cell.server}" if cell.server in SITE_SERVERS else cell.server


def _state(ended: ev.Event) -> str:
    match ended:
        case ev.OperationSucceeded():
            return "succeeded"
        case ev.OperationCancelled():
            return "cancelled"
    return "failed"
