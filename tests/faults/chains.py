"""Runs the cells of the fault matrix on the stack, each as one operation with one kill in it.

Cells of operations of one site share an app as long as they leave it there: it is deployed, saved again and again,
stopped, started and deleted, each time with a cell's kill. The two sites go on side by side, since no process of the
one takes part in the other's. Then come the cells in which the hub dies, and those that span both sites, alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

import aiohttp

from bus.events import Recorded
from hub.client.errors import ClientError, HubUnreachableError
from hub.client.started import Started
from schemas import events as ev
from schemas.ids import new_id
from schemas.values import TemplateRef
from tests.e2e.stack import until
from tests.faults.armed import Arms
from tests.faults.cells import (
    AFTER,
    FORWARDED_KINDS,
    HUB_KINDS,
    SITE_KINDS,
    SITE_SERVERS,
    SOURCE,
    TARGET,
    UNDONE_KINDS,
    Cell,
    every_cell,
    template,
)
from tests.faults.matrix import Outcome
from tests.faults.outcomes import ALONE, Cells
from tests.faults.world import HOLD_SECONDS, SITES, World

END_SECONDS: Final = 100.0
SETTLE_SECONDS: Final = 20.0
ENTRIES: Final = 3
ASKS: Final = 4
MOST_WRONG: Final = 5
WRITER: Final = "cells"

Asking = Callable[[str], Awaitable[Started]]
ENDS = ev.OperationSucceeded | ev.OperationFailed | ev.OperationCancelled


class Left(NamedTuple):
    """What a chain of cells has not used up: a running app, and an image of it."""

    app: str | None
    image: str | None


class Runner:
    """Runs cells on a world. What it makes is called after ``prefix``."""

    def __init__(self, world: World, cells: Cells, *, prefix: str = "cell") -> None:
        self.world = world
        self.cells = cells
        self.arms = Arms(world.stack.home)
        self._prefix = prefix
        self._known: set[str] = set()
        self._running: asyncio.Task[None] | None = None
        self._commands: dict[str, str] = {}
        self._brokers: dict[str, int] = {}
        self.wrong: list[str] = []
        """What did not hold of operations in which nobody was killed."""

    def begin(self) -> None:
        """Run all cells, beside those who wait for their outcomes."""
        self._running = asyncio.create_task(self.run(), name="fault matrix")

    async def end(self) -> None:
        """When all is run and cleared."""
        assert self._running is not None
        await self._running

    async def stop(self) -> None:
        """Run no more of them."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._running

    async def run(self) -> None:
        """All of them. At the end nothing is left that was made here."""
        self._brokers = {site.name: len(site.brokers) for site in await self.world.client.sites()}
        await self.world.client.apply_template(template())
        try:
            here, there = await asyncio.gather(*(self._site(site, site) for site in (SOURCE, TARGET)))
            await self._both(*await self._site(SOURCE, ALONE, *here))
            await self._delete(TARGET, there.app)
            await self._clear()
        except Exception as error:
            self.cells.give_up(error)
            raise

    def left_out(self) -> set[str]:
        """Whoever came by a moment of an operation that was run here, for which there is no cell."""
        cells = {(cell.kind, cell.label("")) for cell in every_cell()}
        found: set[str] = set()
        for label in self.arms.passed():
            command, _, place = label.partition("/")
            kind = self._commands.get(command)
            place = place.replace(f"-{SOURCE}/1/", f"-{TARGET}/1/")
            if kind is None or (kind, f"/{place}") in cells:
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

    # --- cells of one site

    async def _site(self, site: str, place: str, app: str | None = None, image: str | None = None) -> Left:
        """All cells of ``place`` of operations of one site. ``app`` runs there and ``image`` is one of it, if given."""
        while self.cells.left(place, *SITE_KINDS, *UNDONE_KINDS):
            if app is None or self.cells.left(place, "deploy undone"):
                undone = self.cells.take(place, "deploy undone")
                made = await self._make(site, undone or self.cells.take(place, "deploy"))
                app = app or made
            elif self.cells.left(place, "save", "save undone") or (image is None and self.cells.left(place, "run")):
                undone = self.cells.take(place, "save undone")
                image = await self._save(site, app, undone or self.cells.take(place, "save")) or image
            elif self.cells.left(place, "stop", "start"):
                await self._stop_and_start(site, app, place=place)
            elif self.cells.left(place, "run"):
                copy = await self._make(site, self.cells.take(place, "run"), image=image)
                await self._delete(site, copy, self.cells.take(place, "delete"))
            else:
                await self._delete(site, app, self.cells.take(place, "delete"))
                app = None
        return Left(app, image)

    async def _make(self, site: str, cell: Cell | None, *, image: str | None = None) -> str | None:
        """A new app, blank with some entries or from an image; its name when it runs."""
        client, name = self.world.client, self.world.fresh(self._prefix)

        async def ask(command: str) -> Started:
            if image is not None:
                return await client.run(image, name=name, site=site, command=command)
            return await client.deploy(TemplateRef(name=template().name), name=name, site=site, command=command)

        async def check(ended: ev.Event) -> None:
            found = [app for app in await client.apps(site=site) if app.name == name]
            if not isinstance(ended, ev.OperationSucceeded):
                assert not [app for app in found if app.state != "failed"], f"{name} failed and is {found[0].state}"
                return
            await self._serves(name, write=image is None)

        kind = cell.kind if cell is not None else "run" if image is not None else "deploy"
        ended = await self._operate(kind, site, cell, ask, check)
        return name if isinstance(ended, ev.OperationSucceeded) else None

    async def _serves(self, app: str, *, write: bool = False) -> None:
        """The app answers, with all that was written, as rows and as objects; soon, when a server of its has died."""
        wanted = range(1, ENTRIES + 1)
        keys = {f"entries/{WRITER}/{seq}" for seq in wanted}
        said = ""

        async def answers() -> bool:
            nonlocal said
            try:
                for seq in wanted if write else ():
                    await self.world.put(app, writer=WRITER, seq=seq)
                found = await self.world.get(app, "/entries")
            except (AssertionError, ClientError, aiohttp.ClientError, TimeoutError) as error:
                said = repr(error)
                return False
            said = str(found)
            rows = [seq for writer, seq in found["rows"] if writer == WRITER]
            return rows == list(wanted) and {key for key in found["objects"] if WRITER in key} == keys

        try:
            await until(answers, seconds=SETTLE_SECONDS, what=f"the data of {app}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {said}") from None

    async def _save(self, site: str, app: str, cell: Cell | None) -> str | None:
        """The name of a new image of ``app``, when it was saved."""
        name = self.world.fresh(f"{self._prefix}-image")

        async def ask(command: str) -> Started:
            return await self.world.client.save(app, name=name, site=site, command=command)

        async def check(ended: ev.Event) -> None:
            wanted = ("saved", True) if isinstance(ended, ev.OperationSucceeded) else ("failed", False)

            async def told() -> bool:
                return await self.world.image_state(name) == wanted

            await until(told, seconds=10, what=f"image {name} {wanted}")
            await self._serves(app)
            await self.world.write(app, seconds=HOLD_SECONDS + 5)

        ended = await self._operate(cell.kind if cell is not None else "save", site, cell, ask, check)
        return name if isinstance(ended, ev.OperationSucceeded) else None

    async def _stop_and_start(self, site: str, app: str, *, place: str) -> None:
        async def stop(command: str) -> Started:
            return await self.world.client.stop(app, site=site, command=command)

        async def start(command: str) -> Started:
            return await self.world.client.start(app, site=site, command=command)

        async def stands(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        async def serves(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)
            await self._serves(app)

        await self._operate("stop", site, self.cells.take(place, "stop"), stop, stands)
        await self._operate("start", site, self.cells.take(place, "start"), start, serves)

    async def _delete(self, site: str, app: str | None, cell: Cell | None = None) -> None:
        if app is None:
            return

        async def ask(command: str) -> Started:
            return await self.world.client.delete(app, site=site, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        await self._operate("delete", site, cell, ask, check)

    # --- cells of operations that span both sites

    async def _both(self, app: str | None, image: str | None) -> None:
        while self.cells.left(ALONE, *HUB_KINDS):
            app = app or await self._make(SOURCE, None)
            assert app is not None
            image = image or await self._save(SOURCE, app, None)
            assert image is not None
            if self.cells.left(ALONE, "transfer image") or not self.cells.left(ALONE, "run elsewhere"):
                await self._transfer(image)
            else:
                await self._delete(TARGET, await self._run_elsewhere(image))
            if self.cells.left(ALONE, *HUB_KINDS):
                await self._delete_image(image)
                image = None
        await self._delete(SOURCE, app)

    async def _transfer(self, image: str) -> None:
        async def ask(command: str) -> Started:
            return await self.world.client.transfer_image(image, site=TARGET, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        await self._operate("transfer image", None, self.cells.take(ALONE, "transfer image"), ask, check)

    async def _run_elsewhere(self, image: str) -> str | None:
        name = self.world.fresh(self._prefix)

        async def ask(command: str) -> Started:
            return await self.world.client.run(image, name=name, site=TARGET, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)
            await self._serves(name)

        cell = self.cells.take(ALONE, "run elsewhere")
        ended = await self._operate("run elsewhere", None, cell, ask, check)
        return name if isinstance(ended, ev.OperationSucceeded) else None

    async def _delete_image(self, image: str) -> None:
        async def ask(command: str) -> Started:
            return await self.world.client.delete_image(image, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        await self._operate("delete image", None, self.cells.take(ALONE, "delete image"), ask, check)

    # --- one operation

    async def _operate(
        self,
        kind: str,
        site: str | None,
        cell: Cell | None,
        ask: Asking,
        check: Callable[[ev.Event], Awaitable[None]],
    ) -> ev.Event | None:
        """One operation, with the kill of ``cell`` in it; how it ended. What is wrong with it is the cell's."""
        command = new_id()
        self._commands[command] = UNDONE_KINDS.get(kind, kind)
        label = cell.label(command) if cell is not None else ""
        ended: ev.Event | None = None
        try:
            await self._brokers_back(site)
            began, mark = time.monotonic(), len(self.world.record.events)
            if cell is not None:
                self.arms.arm(label, part=_part(cell, site))
                if cell.fails:
                    self.arms.arm(f"{command}/{cell.fails}/agent/fail")
            await self._ask(command, ask)
            ended = await self._end(command)
            seconds = time.monotonic() - began
            if cell is not None:
                assert self.arms.fired(label), f"nobody came by {label}"
                succeeded = isinstance(ended, ev.OperationSucceeded)
                assert succeeded != bool(cell.fails) or cell.may_fail, f"it ended otherwise: {ended}"
            await check(ended)
            await self._judge(site)
            if cell is not None:
                self.cells.settle(cell, self._outcome(cell, command, ended, seconds, mark))
        except (AssertionError, ClientError, aiohttp.ClientError, TimeoutError) as error:
            if cell is None:
                self.wrong.append(f"{kind} without a kill ({command}): {error}")
                if len(self.wrong) > MOST_WRONG:
                    raise
                return ended
            self.arms.disarm(label)
            self.cells.spoil(cell, AssertionError(f"{cell} ({command}): {error}"))
        if cell is not None and (cell.alone or cell.server):
            with suppress(AssertionError):  # then it is the next one that shows it
                await self.world.whole()
        return ended

    async def _brokers_back(self, site: str | None) -> None:
        """Wait until the site that is meant, or each, knows of all of its brokers: without one it takes no command."""

        async def back() -> bool:
            try:
                found = {each.name: len(each.brokers) for each in await self.world.client.sites()}
            except ClientError:
                return False
            return all(found.get(each, 0) >= self._brokers[each] for each in ([site] if site is not None else SITES))

        await until(back, seconds=END_SECONDS, what=f"the brokers of {site or 'both sites'}")

    async def _ask(self, command: str, ask: Asking) -> None:
        """Send the command until it is taken: the hub, or what it says it with, may have died of it."""
        events = self.world.record.events
        for _ in range(ASKS):
            try:
                await ask(command)
                return
            except HubUnreachableError:
                await self.world.whole()
                if any(command in (each.id, each.envelope.causationid) for each in events):
                    return

    async def _end(self, operation: str) -> ev.Event:
        """How an operation ended, and all that it started, clean-up included."""

        def ended(recorded: Recorded) -> bool:
            return recorded.id == operation and isinstance(recorded.event, ENDS)

        found = await self.world.record.wait(ended, what=f"the end of {operation}", seconds=END_SECONDS)
        assert isinstance(found.event, ev.Event)
        if getattr(found.event, "cleanup", "none") == "pending":

            def cleaned(recorded: Recorded) -> bool:
                return recorded.id == operation and isinstance(recorded.event, ev.OperationCleanedUp)

            await self.world.record.wait(cleaned, what=f"the clean-up of {operation}", seconds=END_SECONDS)
        return found.event

    async def _judge(self, site: str | None) -> None:
        """What is wrong and was not told before."""
        complaints: list[str] = []

        async def holds() -> bool:
            found = [
                complaint
                for each in ([site] if site is not None else SITES)
                for complaint in await self.world.checker.complaints_at(each, self.world.record.events)
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
        for recorded in self.world.record.events[mark:]:
            event = recorded.event
            mine = recorded.aggregate == "operation" and recorded.id == cell.operation(command)
            if mine and isinstance(event, ev.StepStarted) and event.step == cell.step:
                attempts = max(attempts, event.attempt)
        label = cell.label(command).rpartition("/")[0]
        times = self.arms.passed().count(f"{label}/before")
        problem = ended.problem.sentence() if isinstance(ended, ev.OperationFailed) else ""
        return Outcome(
            state=_state(ended),
            attempts=attempts,
            asked=times,
            cleanup=str(getattr(ended, "cleanup", "none")),
            seconds=round(seconds, 1),
            problem=problem,
        )

    async def _clear(self) -> None:
        images = [image for image in await self.world.client.images() if image.name.startswith(self._prefix)]
        slots = asyncio.Semaphore(8)

        async def delete(image: str) -> None:
            async with slots:
                await self.world.must(await self.world.client.delete_image(image))

        await asyncio.gather(*(delete(image.id) for image in images))
        await self.world.judge()


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
