"""Runs the cells of the fault matrix on the stack, each as one operation with one kill in it.

Cells of operations of one site share an app as long as they leave it there: it is deployed, saved again and again,
stopped, started and deleted, each time with a cell's kill. The two sites go on side by side, since no process of the
one takes part in the other's. Then come the cells in which the hub dies, and those that span both sites, alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import aiohttp

from bus.events import Recorded
from hub.client.errors import ClientError, HubUnreachableError
from hub.client.started import Started
from schemas import events as ev
from schemas.ids import new_id
from schemas.values import TemplateRef
from tests.e2e.stack import until
from tests.faults.armed import Arms
from tests.faults.cells import HUB_KINDS, SITE_KINDS, SOURCE, TARGET, Cell, every_cell, template
from tests.faults.matrix import Outcome
from tests.faults.world import HOLD_SECONDS, SITES, World

END_SECONDS: Final = 100.0
SETTLE_SECONDS: Final = 20.0
ENTRIES: Final = 3
WRITER: Final = "cells"

Asking = Callable[[str], Awaitable[Started]]
ENDS = ev.OperationSucceeded | ev.OperationFailed | ev.OperationCancelled


class Cells:
    """The cells that are still to be run, and what came of the others. Each outcome is awaited by a test of its own."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._outcomes: dict[Cell, asyncio.Future[Outcome]] = {}
        self._waiting: dict[tuple[str, str], deque[Cell]] = defaultdict(deque)
        loop = asyncio.get_running_loop()
        turns: dict[str, int] = defaultdict(int)
        for cell in cells:
            self._outcomes[cell] = loop.create_future()
            if cell.kind in SITE_KINDS and cell.victim != "hub":
                place = SITES[turns[cell.kind] % len(SITES)]
                turns[cell.kind] += 1
            else:
                place = "alone"
            self._waiting[place, cell.kind].append(cell)

    def take(self, place: str, kind: str) -> Cell | None:
        """The next cell of a kind, if there is one left for ``place``."""
        waiting = self._waiting[place, kind]
        return waiting.popleft() if waiting else None

    def left(self, place: str, *kinds: str) -> bool:
        """Whether there are cells of these kinds for ``place``."""
        return any(self._waiting[place, kind] for kind in kinds)

    async def outcome(self, cell: Cell) -> Outcome:
        """What came of a cell; raises what is wrong with it."""
        return await asyncio.shield(self._outcomes[cell])

    def settle(self, cell: Cell, outcome: Outcome) -> None:
        """That is what came of it."""
        self._outcomes[cell].set_result(outcome)

    def spoil(self, cell: Cell, error: BaseException) -> None:
        """It did not hold."""
        if not self._outcomes[cell].done():
            self._outcomes[cell].set_exception(error)
            self._outcomes[cell].exception()  # marks it as seen: a selection of tests may not ask for it

    def all_settled(self) -> bool:
        """Whether there is an outcome of every cell."""
        return all(outcome.done() for outcome in self._outcomes.values())

    def give_up(self, error: BaseException) -> None:
        """None of those that are left will be run."""
        for cell in self._outcomes:
            self.spoil(cell, error)


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
        await self.world.client.apply_template(template())
        try:
            await asyncio.gather(*(self._site(site) for site in SITES))
            await self._alone()
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
            if kind is None or "-undo/" in place or (kind, f"/{place}") in cells:
                continue
            # A site runs an image that was brought to it as it runs one of its own.
            if ("run", place.removeprefix(f"run-{TARGET}/1")) not in cells:
                found.add(f"{kind}: {place}")
        return found

    # --- cells of one site

    async def _site(self, site: str) -> None:
        app, image = None, None
        kinds = [kind for kind in SITE_KINDS if self.cells.left(site, kind)]
        while self.cells.left(site, *SITE_KINDS):
            if app is None:
                app = await self._make(site, self.cells.take(site, "deploy"))
                continue
            if self.cells.left(site, "save") or (image is None and "run" in kinds):
                image = await self._save(site, app, self.cells.take(site, "save")) or image
            elif self.cells.left(site, "stop", "start"):
                await self._stop_and_start(site, app)
            elif image is not None and self.cells.left(site, "run"):
                copy = await self._make(site, self.cells.take(site, "run"), image=image)
                await self._delete(site, copy)
            else:
                await self._delete(site, app)
                app = None
        await self._delete(site, app)

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
            if image is None:
                for seq in range(1, ENTRIES + 1):
                    await self.world.put(name, writer=WRITER, seq=seq)
            await self._serves(name)

        kind = "run" if image is not None else "deploy"
        ended = await self._operate(kind, site, cell, ask, check)
        return name if isinstance(ended, ev.OperationSucceeded) else None

    async def _serves(self, app: str) -> None:
        """The app answers, with all that was written, as rows and as objects."""
        found = await self.world.get(app, "/entries")
        wanted = range(1, ENTRIES + 1)
        assert [seq for writer, seq in found["rows"] if writer == WRITER] == list(wanted), found
        assert {key for key in found["objects"] if WRITER in key} == {f"entries/{WRITER}/{seq}" for seq in wanted}

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
            await self.world.write(app, seconds=HOLD_SECONDS + 5)

        ended = await self._operate("save", site, cell, ask, check)
        return name if isinstance(ended, ev.OperationSucceeded) else None

    async def _stop_and_start(self, site: str, app: str) -> None:
        async def stop(command: str) -> Started:
            return await self.world.client.stop(app, site=site, command=command)

        async def start(command: str) -> Started:
            return await self.world.client.start(app, site=site, command=command)

        async def stands(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        async def serves(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)
            await self._serves(app)

        place = site if self.cells.left(site, "stop", "start") else "alone"
        await self._operate("stop", site, self.cells.take(place, "stop"), stop, stands)
        await self._operate("start", site, self.cells.take(place, "start"), start, serves)

    async def _delete(self, site: str, app: str | None, *, place: str | None = None) -> None:
        if app is None:
            return

        async def ask(command: str) -> Started:
            return await self.world.client.delete(app, site=site, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        await self._operate("delete", site, self.cells.take(place or site, "delete"), ask, check)

    # --- cells that have the stack for themselves

    async def _alone(self) -> None:
        while self.cells.left("alone", *SITE_KINDS):
            app = await self._make(SOURCE, self.cells.take("alone", "deploy"))
            if app is None:
                continue
            if self.cells.left("alone", "save", "run"):
                image = await self._save(SOURCE, app, self.cells.take("alone", "save"))
                if image is not None and self.cells.left("alone", "run"):
                    copy = await self._make(SOURCE, self.cells.take("alone", "run"), image=image)
                    await self._delete(SOURCE, copy)
            if self.cells.left("alone", "stop", "start"):
                await self._stop_and_start(SOURCE, app)
            await self._delete(SOURCE, app, place="alone")
        app = None
        while self.cells.left("alone", *HUB_KINDS):
            app = app or await self._make(SOURCE, None)
            assert app is not None
            image = await self._save(SOURCE, app, None)
            assert image is not None
            copy = await self._run_elsewhere(image)
            await self._delete(TARGET, copy)
            await self._delete_image(image)
        await self._delete(SOURCE, app)

    async def _run_elsewhere(self, image: str) -> str | None:
        name = self.world.fresh(self._prefix)

        async def ask(command: str) -> Started:
            return await self.world.client.run(image, name=name, site=TARGET, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)
            await self._serves(name)

        cell = self.cells.take("alone", "run elsewhere")
        ended = await self._operate("run elsewhere", None, cell, ask, check)
        return name if isinstance(ended, ev.OperationSucceeded) else None

    async def _delete_image(self, image: str) -> None:
        async def ask(command: str) -> Started:
            return await self.world.client.delete_image(image, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        await self._operate("delete image", None, self.cells.take("alone", "delete image"), ask, check)

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
        self._commands[command] = kind
        label = cell.label(command) if cell is not None else ""
        began, mark = time.monotonic(), len(self.world.record.events)
        ended: ev.Event | None = None
        try:
            if cell is not None:
                self.arms.arm(label)
            await self._ask(command, ask)
            ended = await self._end(command)
            seconds = time.monotonic() - began
            if cell is not None:
                assert self.arms.fired(label), f"nobody came by {label}"
            await check(ended)
            await self._judge(site)
            if cell is not None:
                self.cells.settle(cell, self._outcome(cell, command, ended, seconds, mark))
        except (AssertionError, ClientError, aiohttp.ClientError, TimeoutError) as error:
            if cell is None:
                raise
            self.arms.disarm(label)
            self.cells.spoil(cell, AssertionError(f"{cell} ({command}): {error}"))
        return ended

    async def _ask(self, command: str, ask: Asking) -> None:
        """Send the command until somebody has it. One that is stored is carried out, whoever is away just now."""
        with suppress(HubUnreachableError):
            await ask(command)

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
        for image in await self.world.client.images():
            if image.name.startswith(self._prefix):
                with suppress(ClientError):
                    await self.world.must(await self.world.client.delete_image(image.id))
        await self.world.judge()


def _state(ended: ev.Event) -> str:
    match ended:
        case ev.OperationSucceeded():
            return "succeeded"
        case ev.OperationCancelled():
            return "cancelled"
    return "failed"
