"""A running hub: everything wired together, and how long each part lives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from bus.advisories import Advisories
from bus.connection import Bus, Message, Subscription
from bus.ending import end
from bus.events import EventStore
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.letters import LetterBox
from bus.metrics import MEASURES, Sample, bus_samples
from bus.rebuilding import Rebuilding
from bus.room import HubRoom
from bus.service import Service
from bus.snapshots import Snapshots
from bus.strays import forged
from bus.streams import (
    ADVISORIES,
    EVENTS,
    JOBS,
    JOBS_CONSUMER,
    LETTERS_CONSUMER,
    SAGAS_CONSUMER,
    add_site,
    set_up_hub,
)
from bus.subscriptions import Places
from bus.work import WorkQueue
from hub.adapters.conditions import Conditions
from hub.adapters.hubs import SERVICE, Hubs
from hub.adapters.outbound import BusOutbound
from hub.adapters.subscriptions import Subscriptions
from hub.adapters.upkeep import Upkeep
from hub.application.acts import Acts
from hub.application.commands import CommandHandler
from hub.application.context import Context
from hub.application.letters import Letters
from hub.application.members import Members
from hub.application.projector import Projector
from hub.application.queries import Queries
from hub.application.reactor import HEARD_SUBJECTS, Reactor
from hub.application.sagas import Sagas
from hub.application.snapshots import Policy, Snapshotter
from hub.application.strays import StrayEvents
from hub.settings import HubSettings
from schemas.brokers import SERVICE_VERSION
from schemas.envelope import Envelope, decode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, temporary
from schemas.queries import CLIENT_ACTS, LETTER_ACTS, QUERIES, SITE_ASK, SUBSCRIPTION_ACTS
from schemas.signals import Beat, SiteCondition
from schemas.subjects import HUB, HUB_BEAT, acts, beat, query, site_ask
from schemas.upkeep import UPKEEP_ACTS

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
ROOM_SECONDS = 2.0
CONNECT_SECONDS = 30.0
SET_UP_AGAIN_SECONDS = 1.0
CATCH_UP_SECONDS = 600.0
STOP_SECONDS = 3.0
FRESH_SECONDS = 1.0
AGAIN_SECONDS = 0.3
COMMANDS_AT_ONCE = 32
INDEXED_AT_ONCE = 250
READ_AT_ONCE = 8
EVENTS_AT_ONCE = 64
SAGA_DELIVERIES = 1000


@contextlib.asynccontextmanager
async def hub(settings: HubSettings) -> AsyncIterator[Hub]:
    """A hub that is ready: its streams exist and its projections have caught up. Drains on the way out.

    Raises :class:`CalqueError` when it can't become ready.
    """
    bus = await Bus.connect(
        settings.bus.connection(),
        deadline_seconds=CONNECT_SECONDS,
    )
    try:
        running = Hub(bus, settings)
        with MEASURES.collecting(running.collect):
            async with running.running():
                yield running
    finally:
        await bus.close()


class Hub:
    """Wires the parts together."""

    def __init__(self, bus: Bus, settings: HubSettings) -> None:
        self._bus = bus
        self._settings = settings
        self._snapshots = Snapshots(bus)
        self.snapshotter = Snapshotter(
            self._snapshots,
            JetStream(bus),
            name=settings.bus.name,
            clock=_now,
            policy=Policy(**settings.snapshots.model_dump()),
        )
        feed = EventsFeed(bus)
        self._strays = feed.strays
        self.context = Context(
            events=EventStore(bus, writer=HUB),
            outbound=BusOutbound(bus),
            projector=Projector(feed, start=self.snapshotter.start, drain=feed.drain),
            clock=_now,
            sites=tuple(settings.sites),
        )
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with its exception, when a part fell over that the hub can't be without."""
        self._run = new_id()
        self._hubs = Hubs(bus, run=self._run)
        self._members = Members(self.context, seconds=time.monotonic)
        self._checks: set[asyncio.Task[None]] = set()
        self._sagas = Sagas(self.context)
        self._conditions = Conditions(bus, self.context, self._members, snapshots=self.snapshotter)
        self._room = HubRoom(JetStream(bus), sites=settings.sites)
        self._commands = CommandHandler(self.context, full=self._room.full)
        self._reactor = Reactor(self.context, self._sagas)
        self._service = self._queries()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Set up, read all events, then listen; on the way out in the reverse order."""
        await self._set_up()
        loops: list[asyncio.Task[None]] = []

        def begin(work: Coroutine[Any, Any, None], name: str) -> None:
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(lambda done: _note(done, self.failed))
            loops.append(task)

        jobs = WorkQueue(self._bus, stream=JOBS, consumer=JOBS_CONSUMER)
        events = WorkQueue(self._bus, stream=EVENTS, consumer=SAGAS_CONSUMER, max_deliveries=SAGA_DELIVERIES)
        advised = WorkQueue(self._bus, stream=ADVISORIES, consumer=LETTERS_CONSUMER)
        queues: list[WorkQueue] = []
        beats: list[Subscription] = []
        try:
            begin(self.context.projector.run(), "projector")
            await _unless(self.failed, self.context.projector.caught_up(timeout_seconds=CATCH_UP_SECONDS))
            gc.freeze()  # what was read stays: looking through it again and again would hold everybody up
            beats = [await self._bus.listen(beat(site), self._listener(site)) for site in self._settings.sites]
            beats.append(await self._bus.subscribe(HUB_BEAT, self._hubs.heard))
            await self._service.start()
            for site in self._settings.sites:
                begin(add_site(self._bus, site), f"join-{site}")
            begin(self.snapshotter.run(self.context.projector), "snapshots")
            begin(self._members.run(), "members")
            begin(self._conditions.watch(), "condition")
            begin(self._beat(), "heartbeat")
            begin(self._watch_room(), "room")
            begin(self._find_images(), "image-index")
            begin(self._sagas.run(), "sagas")
            queues = [jobs, events, advised]
            begin(events.run(self._reactor.handle, concurrency=EVENTS_AT_ONCE), "events")
            begin(jobs.run(self._commands.handle, concurrency=COMMANDS_AT_ONCE), "commands")
            begin(advised.run(Advisories(self._bus, place=HUB).handle, concurrency=1), "advisories")
            logger.info(
                "ready: %d events, sites %s", self.context.state.events, ", ".join(self.context.sites) or "none"
            )
            yield
        finally:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.gather(*(each.stop() for each in beats))
                    await asyncio.gather(*(queue.stop() for queue in queues))
                    await self._service.stop(grace_seconds=STOP_SECONDS / 2)
            except TimeoutError:
                logger.warning("not everything stopped within %.1f s; it will be delivered again", STOP_SECONDS)
            await end([*loops, *self._checks])
            self.failed.cancel()

    async def collect(self) -> list[Sample]:
        """What metrics show of this hub."""
        return [*bus_samples(self._bus), *await self._conditions.collect()]

    async def _set_up(self) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                await self._snapshots.open()
                await Rebuilding(self._bus, run=new_id()).finish()
                await set_up_hub(self._bus, sites=self._settings.sites, heard=HEARD_SUBJECTS)
            except CalqueError as error:
                if not error.problem.temporary or time.monotonic() >= deadline:
                    raise
                logger.warning("the streams of the hub can't be set up yet: %s", error)
                await asyncio.sleep(SET_UP_AGAIN_SECONDS)
            else:
                return

    def _begin_again(self, why: str) -> None:
        """End with an error, so that whoever runs this process starts it again; what was asked is answered before."""

        def end() -> None:
            if not self.failed.done():
                self.failed.set_exception(CalqueError(temporary("events_replaced", f"{why}: the hub starts again")))

        asyncio.get_running_loop().call_later(AGAIN_SECONDS, end)

    def _listener(self, site: str) -> Callable[[Message], None]:
        def heard(message: Message) -> None:
            if self._members.note(site, _condition(message)):
                check = asyncio.create_task(self._members.check(site), name=f"first-beat-{site}")
                self._checks.add(check)
                check.add_done_callback(self._checks.discard)

        return heard

    async def _beat(self) -> None:
        sequence = 0
        while True:
            sequence += 1
            data = Beat(
                sender=HUB, run=self._run, sequence=sequence, interval_seconds=BEAT_SECONDS, version=SERVICE_VERSION
            )
            try:
                await self._bus.publish(HUB_BEAT, wrap(data, id=new_id(), source=HUB, time=timestamp(_now())))
            except CalqueError as error:
                logger.debug("no heartbeat: %s", error)
            await asyncio.sleep(BEAT_SECONDS)

    async def _watch_room(self) -> None:
        while True:
            try:
                await self._room.look()
            except CalqueError as error:
                logger.debug("the room in the streams is not known: %s", error)
            await asyncio.sleep(ROOM_SECONDS)

    def _fresh(self, answer: Callable[[Any, Envelope], Awaitable[Any]]) -> Callable[[Any, Envelope], Awaitable[Any]]:
        """``answer``, from all that is stored when the question arrives, if another hub is there.

        One hub answers a command when its own tables show what followed; the next question may come to another one.
        """

        async def answered(question: Any, envelope: Envelope) -> Any:
            if self._hubs.others:
                with contextlib.suppress(CalqueError):  # a hub that lags answers what it knows
                    await self.context.projector.caught_up(timeout_seconds=FRESH_SECONDS)
            return await answer(question, envelope)

        return answered

    def _letters(self) -> Letters:
        handlers = {(EVENTS, SAGAS_CONSUMER): self._reactor.handle}
        return Letters(self.context, LetterBox(self._bus, place=HUB, sent_again=(JOBS,), into=JOBS, handlers=handlers))

    async def _find_images(self) -> None:
        """Have the first questions for images not wait for an index of all of them, nor for what a snapshot holds."""
        left = True
        while left:
            left = self.context.state.image_index.refresh(most=INDEXED_AT_ONCE)
            await asyncio.sleep(0)
        left = True
        while left:
            left = self.context.state.images.copies.read_some(READ_AT_ONCE)
            await asyncio.sleep(0)

    def _queries(self) -> Service:
        queries = Queries(self.context, self._members, name=self._settings.bus.name, conditions=self._conditions)
        service = Service(
            self._bus,
            name=SERVICE,
            version=SERVICE_VERSION,
            description="Catalog of images, state of all sites, operations that span sites",
            source=HUB,
            metadata={"name": self._settings.bus.name, "run": self._run, "since": timestamp(_now())},
        )
        letters = self._letters()
        js = JetStream(self._bus)
        strays = StrayEvents(self.context, self._strays, forged=lambda site, others: forged(js, site, others=others))
        upkeep = Upkeep(self._bus, self._settings, self.snapshotter, self.context.projector, restart=self._begin_again)
        for what, contract in QUERIES.items():
            rooms = (letters, strays, upkeep, self._room, self._hubs, queries)
            answers = next(each for each in rooms if hasattr(each, what))
            service.endpoint(what, query(what), contract.query, contract.reply, self._fresh(getattr(answers, what)))
        for what, contract in LETTER_ACTS.items():
            service.addressed(what, acts(what), contract.query, contract.reply, getattr(letters, what))
        for what, contract in UPKEEP_ACTS.items():
            service.addressed(what, acts(what), contract.query, contract.reply, getattr(upkeep, what))
        changes = Acts(self.context)
        for what, contract in CLIENT_ACTS.items():
            service.addressed(what, acts(what), contract.query, contract.reply, getattr(changes, what))
        places = Subscriptions(Places(self._bus))
        for what, asked in SUBSCRIPTION_ACTS.items():
            service.addressed(what, acts(what), asked.query, asked.reply, getattr(places, what))
        for site in self._settings.sites:
            # The subject says who asks: a site's credentials let it ask as itself only.
            for what, contract in SITE_ASK.items():
                service.endpoint(
                    f"{what}-{site}",
                    site_ask(site=site, operation=what),
                    contract.query,
                    contract.reply,
                    _asking(getattr(queries, what), site),
                )
        return service


def _asking(answer: Callable[[str, Any], Awaitable[Any]], site: str) -> Any:
    async def asked(question: Any, _envelope: Envelope) -> Any:
        return await answer(site, question)

    return asked


def _condition(message: Message) -> SiteCondition | None:
    """What a heartbeat says besides that it beats; one of another shape is a heartbeat all the same."""
    try:
        return unwrap(decode(message.payload), Beat).condition
    except CalqueError:
        return None


def _now() -> datetime:
    return datetime.now(UTC)


def _note(done: asyncio.Task[None], failed: asyncio.Future[None]) -> None:
    if done.cancelled() or failed.done():
        return
    error = done.exception()
    if error is not None:
        failed.set_exception(error)


async def _unless(failed: asyncio.Future[None], work: Coroutine[Any, Any, None]) -> None:
    """``work``, or the error of the part that fell over meanwhile."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task, failed}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        failed.result()
    await task
