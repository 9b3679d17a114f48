"""The stack that faults happen to, with the application that they happen around, and the means to cause them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import obstore
import psycopg
from obstore.store import S3Store

from bus.events import Recorded
from hub.client.client import Client
from hub.client.errors import NotFoundError, OperationFailedError
from hub.client.started import Started
from hub.manifest import load_template
from hub.stack.layout import HomeLayout
from schemas.events import OperationAccepted
from schemas.problems import CalqueError
from schemas.queries import OperationView
from schemas.values import TemplateRef
from tests.e2e.stack import Stack, until
from tests.faults.checker import Checker
from tests.faults.fold import Fold
from tests.faults.reality import LOOPBACK, Ports
from tests.faults.record import Record

APPS = Path(__file__).parent / "apps"
SITES = ("north", "south")
APP = "ledger"
ROWS, ROW_BYTES = 1536, 16 << 10
OBJECTS, OBJECT_BYTES = 32, 256 << 10
OPERATION_SECONDS = 90.0
HOLD_SECONDS = 30.0
"""The deadline that agents give for every hold of writers."""


@dataclass
class World:
    """One per session. ``record`` grows while tests run; ``checker`` judges when they ask for it."""

    stack: Stack
    client: Client
    record: Record
    checker: Checker
    http: aiohttp.ClientSession
    names: Iterator[int] = field(default_factory=lambda: iter(range(1, 10_000)))

    # --- the application

    async def deploy(self) -> None:
        """The application at north, with its data."""
        await self.client.apply_template(load_template(APPS / APP / "calque.yaml"))
        await self.must(await self.client.deploy(TemplateRef(name=APP), name=APP, site="north"))
        await asyncio.gather(self.fill_rows(), self.fill_objects())

    async def fill_rows(self) -> None:
        """Random rows, which no compression makes smaller."""
        binding = await self.client.binding(APP, "rows")

        def fill() -> None:
            with (
                psycopg.connect(binding.secrets["uri"].value) as rows,
                rows.cursor().copy("COPY ballast FROM STDIN (FORMAT binary)") as copy,
            ):
                copy.set_types(["int8", "bytea"])
                for id in range(ROWS):
                    copy.write_row((id, os.urandom(ROW_BYTES)))

        await asyncio.to_thread(fill)

    async def fill_objects(self, *, prefix: str = "ballast/", count: int = OBJECTS, marker: bytes = b"") -> None:
        """Random objects, each beginning with ``marker``."""
        store = await self.bucket(APP)
        slots = asyncio.Semaphore(8)

        async def put(number: int) -> None:
            async with slots:
                await obstore.put_async(store, f"{prefix}{number}", marker + os.urandom(OBJECT_BYTES - len(marker)))

        await asyncio.gather(*(put(number) for number in range(count)))

    async def remove_objects(self, prefix: str) -> None:
        """Remove objects from the bucket of the application."""
        store = await self.bucket(APP)
        async for chunk in obstore.list(store, prefix=prefix):
            await obstore.delete_async(store, [entry["path"] for entry in chunk])

    async def bucket(self, app: str) -> S3Store:
        """The bucket of an app, with the app's own credentials."""
        binding = await self.client.binding(app, "blobs")
        return S3Store(
            binding.attributes["bucket"],
            endpoint=binding.attributes["endpoint"],
            access_key_id=binding.attributes["access_key"],
            secret_access_key=binding.secrets["secret_key"].value,
            region=binding.attributes.get("region", "us-east-1"),
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": timedelta(seconds=20)},
        )

    async def get(self, app: str, path: str) -> dict[str, Any]:
        """What the application answers."""
        async with self.http.get(f"{await self._url(app)}{path}") as answer:
            assert answer.status == 200, f"{app} answers {path} with {answer.status}"
            found: dict[str, Any] = await answer.json()
            return found

    async def write(self, app: str, *, seconds: float) -> float:
        """One write through the application and one by its pen; how long both took. Fails after ``seconds``."""
        began = time.monotonic()
        url = await self._url(app)
        before = (await self.get(app, "/entries"))["strokes"][1]

        async def written() -> bool:
            try:
                timeout = aiohttp.ClientTimeout(total=max(began + seconds - time.monotonic(), 0.1))
                body = {"writer": "test", "seq": time.monotonic_ns()}
                async with self.http.post(f"{url}/entries", json=body, timeout=timeout) as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        async def stroke() -> bool:
            return bool((await self.get(app, "/entries"))["strokes"][1] > before)

        await until(written, seconds=seconds, what=f"a write to {app}")
        await until(stroke, seconds=max(began + seconds - time.monotonic(), 0.1), what=f"a stroke of the pen of {app}")
        return time.monotonic() - began

    async def put(self, app: str, *, writer: str, seq: int) -> None:
        """One write through the application. Raises ``aiohttp.ClientError``."""
        body = {"writer": writer, "seq": seq}
        async with self.http.post(f"{await self._url(app)}/entries", json=body) as answer:
            answer.raise_for_status()

    async def _url(self, app: str) -> str:
        url = (await self.client.app(app)).url
        assert url is not None
        return url

    # --- operations

    def fresh(self, what: str) -> str:
        """A name that no test used yet."""
        return f"{what}-{next(self.names)}"

    async def save(self) -> tuple[str, Started]:
        """Begin to save the application; the image's name."""
        name = self.fresh("image")
        return name, await self.client.save(APP, name=name)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[tuple[str, Started]]:
        """A save whose writers are quiesced and paused, and whose moment at Postgres is not fixed meanwhile."""
        name, started = await self.save()
        await self.record.step(started.command, "quiesce-web")
        with self.frozen("north-dsb-postgres"):
            await self.record.step(started.command, "prepare-rows")
            assert not self.record.done(started.command, "prepare-rows")
            assert (await self.get(APP, "/healthz"))["quiesced"]
            yield name, started

    async def judge_save(self, name: str, started: Started) -> OperationView:
        """A save ends, well or failed: the image says the same, writers write, the history holds."""
        view = await self.end(started)
        assert view.state in ("succeeded", "failed")
        wanted = ("saved", True) if view.state == "succeeded" else ("failed", False)
        assert await self.image_state(name) == wanted
        await self.write(APP, seconds=HOLD_SECONDS + 60)
        await self.judge()
        return view

    async def saved(self) -> str:
        """The name of an image, saved without any fault."""
        name, started = await self.save()
        await self.must(started)
        return name

    async def run(self, image: str, *, site: str = "south") -> tuple[str, Started]:
        """Begin to run an image; the new instance's name."""
        name = self.fresh("copy")
        return name, await self.client.run(image, name=name, site=site)

    async def end(self, started: Started, *, seconds: float = OPERATION_SECONDS) -> OperationView:
        """The operation as it ended, well or not."""
        assert started.operation is not None
        try:
            return await self.client.wait(started.operation, timeout=seconds)
        except OperationFailedError as error:
            return error.view

    async def must(self, started: Started, *, seconds: float = OPERATION_SECONDS) -> OperationView:
        """The operation's end, which has to be a success."""
        view = await self.end(started, seconds=seconds)
        assert view.state == "succeeded", f"{view.kind} {view.name}: {view.state}: {view.problem}"
        return view

    async def ended(self, *, seconds: float) -> None:
        """Wait until every operation has ended."""

        async def all_ended() -> bool:
            return not [*await self.client.operations(state="accepted"), *await self.client.operations(state="running")]

        await until(all_ended, seconds=seconds, what="the end of all operations", every_seconds=0.5)

    async def clear(self) -> None:
        """Remove what a test made: all images, and all instances but the application at north."""
        await self.ended(seconds=OPERATION_SECONDS)
        for app in await self.client.apps():
            if app.name != APP or app.site != "north":
                await self.must(await self.client.delete(app.id))
        for image in await self.client.images():
            with suppress(NotFoundError):
                await self.must(await self.client.delete_image(image.id))

    # --- moments

    def staged(self, site: str) -> bool:
        """Whether the repository of a site has a copy open for writing."""
        opened = HomeLayout(self.stack.home).state(site, "crb-filesystem") / "open"
        return any(opened.glob("*/open.json"))

    async def receiving(self, site: str, operation: str, step: str) -> None:
        """Wait until data of ``step`` streams into the repository of ``site``."""
        await self.record.step(operation, step)

        async def received() -> bool:
            return self.staged(site)

        await until(received, seconds=20, what=f"data of {step}", every_seconds=0.002)

    async def next_operation(self, kind: str, *, after: int) -> str:
        """The id of the first operation of a kind that is accepted behind ``after`` events of the record."""

        def accepted(recorded: Recorded) -> bool:
            return isinstance(recorded.event, OperationAccepted) and recorded.event.kind == kind

        return (await self.record.wait(accepted, what=f"a {kind}", after=after)).id

    async def idle(self, seconds: float) -> None:
        """Let a span of time pass in which no operation runs: that span is what is measured."""
        await asyncio.sleep(seconds)

    # --- faults

    def kill(self, part: str) -> None:
        """SIGKILL; the supervisor starts it again."""
        self.stack.kill(part)

    async def kill_and_await(self, part: str) -> None:
        """SIGKILL, and wait until the part is ready again."""
        pid = self.stack.kill(part)

        async def again() -> bool:
            state = self.stack.parts()[part]
            return bool(state["phase"] == "ready" and state["pid"] != pid)

        await until(again, seconds=30, what=f"{part} again")

    @contextmanager
    def frozen(self, *parts: str) -> Iterator[None]:
        """Parts that stand still (SIGSTOP), so that what waits for them stays in the middle of it."""
        pids = [self.stack.pid(part) for part in parts]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def hub_away(self) -> AsyncIterator[None]:
        """The hub's NATS server is killed and can't start again: its ports are taken by what hangs up at once."""
        ports = Ports(self.stack.home)
        taken: list[asyncio.Server] = []

        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async def take() -> bool:
            with suppress(ProcessLookupError, TypeError):
                self.kill("hub-nats")  # it may have been quicker than we, and started again
            with suppress(OSError):
                for name in ("hub-nats", "hub-nats-leaf")[len(taken) :]:
                    taken.append(await asyncio.start_server(hang_up, LOOPBACK, ports[name]))
            return len(taken) == 2

        try:
            await until(take, seconds=20, what="the ports of the hub's server", every_seconds=0.01)
            yield
            assert self.stack.parts()["hub-nats"]["phase"] != "ready"
        finally:
            for server in taken:
                server.close()
                await server.wait_closed()

    async def whole(self, *, seconds: float = 60.0) -> None:
        """Wait until every part is ready and every site reports all of its brokers again."""
        pids: dict[str, int] = {}

        async def ready() -> bool:
            parts = self.stack.parts()
            alive = all(part["phase"] == "ready" and _runs(part["pid"]) for part in parts.values())
            pids.update({name: part["pid"] for name, part in parts.items()})
            return alive

        async def reported() -> bool:
            try:
                sites = await self.client.sites()
            except CalqueError:
                return False
            return len(sites) == len(SITES) and all(
                site.state == "online" and len(site.brokers) >= brokers_of(site.name) for site in sites
            )

        def brokers_of(site: str) -> int:
            return sum(name.startswith((f"{site}-dsb-", f"{site}-psb-", f"{site}-crb-")) for name in pids)

        await until(ready, seconds=seconds, what=f"all parts ready ({self.stack.parts()})")
        await until(reported, seconds=seconds, what="all sites online with their brokers")

    async def judge(self) -> Fold:
        """The checker's verdict, once all parts are up."""
        await self.whole()
        return await self.checker.judge()

    async def image_state(self, name: str) -> tuple[str, bool]:
        """The state of an image, and whether it is listed."""
        found = await self.client.images(name=name, all=True)
        listed = await self.client.images(name=name)
        return (found[0].state if found else "none"), bool(listed)


def _runs(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
