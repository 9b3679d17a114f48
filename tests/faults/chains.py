"""Runs the cells of the fault matrix on the stack, each as one operation with one kill in it.

Cells of operations of one site share an app as long as they leave it there: it is deployed, saved again and again,
stopped, started and deleted, each time with a cell's kill. The two sites go on side by side, since no process of the
one takes part in the other's. Then come the cells in which the hub dies, and those that span both sites, alone.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, NamedTuple

import aiohttp

from hub.client.errors import ClientError
from hub.client.started import Started
from schemas import events as ev
from schemas.values import TemplateRef
from tests.e2e.stack import until
from tests.faults.cells import (
    HUB_KINDS,
    SITE_KINDS,
    SOURCE,
    TARGET,
    UNDONE_KINDS,
    Cell,
    template,
)
from tests.faults.operating import SETTLE_SECONDS, Operations
from tests.faults.outcomes import ALONE, Cells
from tests.faults.world import HOLD_SECONDS, World

ENTRIES: Final = 3
WRITER: Final = "cells"


class Left(NamedTuple):
    """What a chain of cells has not used up: a running app, and an image of it."""

    app: str | None
    image: str | None


class Runner:
    """Runs cells on a world. What it makes is called after ``prefix``."""

    def __init__(self, world: World, cells: Cells, *, prefix: str = "cell") -> None:
        self.world = world
        self.cells = cells
        self._prefix = prefix
        self._running: asyncio.Task[None] | None = None
        self._operations = Operations(world, cells)

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
        await self._operations.begin()
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
        return self._operations.left_out()

    @property
    def wrong(self) -> list[str]:
        """What did not hold of operations in which nobody was killed."""
        return self._operations.wrong

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
        ended = await self._operations.run(kind, site, cell, ask, check)
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
            await self.world.write(app, seconds=HOLD_SECONDS + 60)

        ended = await self._operations.run(cell.kind if cell is not None else "save", site, cell, ask, check)
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

        await self._operations.run("stop", site, self.cells.take(place, "stop"), stop, stands)
        await self._operations.run("start", site, self.cells.take(place, "start"), start, serves)

    async def _delete(self, site: str, app: str | None, cell: Cell | None = None) -> None:
        if app is None:
            return

        async def ask(command: str) -> Started:
            return await self.world.client.delete(app, site=site, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        await self._operations.run("delete", site, cell, ask, check)

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

        await self._operations.run("transfer image", None, self.cells.take(ALONE, "transfer image"), ask, check)

    async def _run_elsewhere(self, image: str) -> str | None:
        name = self.world.fresh(self._prefix)

        async def ask(command: str) -> Started:
            return await self.world.client.run(image, name=name, site=TARGET, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)
            await self._serves(name)

        cell = self.cells.take(ALONE, "run elsewhere")
        ended = await self._operations.run("run elsewhere", None, cell, ask, check)
        return name if isinstance(ended, ev.OperationSucceeded) else None

    async def _delete_image(self, image: str) -> None:
        async def ask(command: str) -> Started:
            return await self.world.client.delete_image(image, command=command)

        async def check(ended: ev.Event) -> None:
            assert isinstance(ended, ev.OperationSucceeded)

        await self._operations.run("delete image", None, self.cells.take(ALONE, "delete image"), ask, check)

    async def _clear(self) -> None:
        images = [image for image in await self.world.client.images() if image.name.startswith(self._prefix)]
        slots = asyncio.Semaphore(8)

        async def delete(image: str) -> None:
            async with slots:
                await self.world.must(await self.world.client.delete_image(image))

        await asyncio.gather(*(delete(image.id) for image in images))
        await self.world.judge()
