"""The process wired together: a worker per webhook, kept in step with the record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bus.connection import Bus
from bus.ending import end
from bus.hosting import run_process
from bus.jetstream import JetStream
from bus.kept import Durables, Shelf
from bus.metrics import MEASURES, Sample, bus_samples
from bus.streams import EVENTS
from bus.work import enqueue
from hub.webhooks.answers import Answers
from hub.webhooks.filters import subjects
from hub.webhooks.ledger import Ledger
from hub.webhooks.origins import Origins
from hub.webhooks.registry import CONSUMERS, Definition, Registry
from hub.webhooks.sending import Result, Sender
from hub.webhooks.settings import WebhooksSettings
from hub.webhooks.signing import Secrets
from hub.webhooks.worker import ACK_WAIT_SECONDS, Delays, Worker
from schemas.commands import PauseWebhook
from schemas.envelope import parse_timestamp, timestamp, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, permanent
from schemas.secrets import Secret
from schemas.subjects import hub_command
from schemas.webhooks import StartAt

logger = logging.getLogger(__name__)

PRINCIPAL = "webhooks"
CONNECT_SECONDS = 30.0
SET_UP_AGAIN_SECONDS = 0.1
STOP_SECONDS = 4.5
LOOK_AGAIN_SECONDS = 30.0


def main() -> None:
    """Run until a signal. Does not return."""
    run_process(WebhooksSettings, webhooks, name=lambda _: "webhooks", stop_seconds=STOP_SECONDS)


@contextlib.asynccontextmanager
async def webhooks(settings: WebhooksSettings) -> AsyncIterator[asyncio.Future[None]]:
    """Deliveries go on while inside. Raises :class:`CalqueError` when they can't begin."""
    try:
        secrets = Secrets(settings.secrets_key_file)
    except (OSError, ValueError) as error:
        raise CalqueError(permanent("settings", str(error), field="secrets_key_file")) from None
    bus = await Bus.connect(settings.bus.connection(), deadline_seconds=CONNECT_SECONDS)
    sender = Sender(allow_private=settings.allow_private, ca_file=settings.ca_file)
    try:
        running = Webhooks(bus, settings, secrets=secrets, sender=sender)
        with MEASURES.collecting(running.collect):
            async with running.running():
                yield running.failed
    finally:
        await sender.close()
        await bus.close()


class _Running(NamedTuple):
    worker: Worker
    task: asyncio.Task[None]


class Webhooks:
    """Starts and stops workers as the record says."""

    def __init__(self, bus: Bus, settings: WebhooksSettings, *, secrets: Secrets, sender: Sender) -> None:
        js = JetStream(bus)
        self._bus = bus
        self._sender = sender
        self._secrets = secrets
        self._delays = Delays(first=settings.first_delay_seconds, longest=settings.longest_delay_seconds)
        self._registry = Registry(bus)
        self._ledger = Ledger(js)
        self._durables = Durables(js, EVENTS)
        self._events = Shelf(js, EVENTS)
        self._origins = Origins(js, stream=EVENTS)
        self._running: dict[str, _Running] = {}
        self._known: set[str] | None = None
        self._changed = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers = Answers(
            self._registry, ledger=self._ledger, durables=self._durables, secrets=secrets, send=self._send
        )
        self._service = answers.service(bus)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Set up, then deliver."""
        await self._set_up()
        following = asyncio.create_task(self._follow(), name="follow webhooks")
        keeping = asyncio.create_task(self._keep(), name="keep webhooks")
        for task in (following, keeping):
            task.add_done_callback(self._note)
        try:
            await self._service.start()
            yield
        finally:
            await self._service.stop(grace_seconds=1.0)
            await end([following, keeping, *(each.task for each in self._running.values())])
            self.failed.cancel()

    async def collect(self) -> list[Sample]:
        """What metrics show of this process."""
        return bus_samples(self._bus)

    async def step(self) -> None:
        """Bring consumers and workers in step with the definitions, once. Raises :class:`CalqueError`."""
        wanted = {each.consumer: each for each in self._registry.definitions.values()}
        for name, running in list(self._running.items()):
            now = wanted.get(name)
            if now is None or now.webhook.paused or now != running.worker.definition:
                del self._running[name]
                await end([running.task])
        for name, definition in wanted.items():
            if await self._durables.info(name) is None:
                start = await self._beginning(definition)
                await self._durables.ensure(name, _consumer(definition, start), ack_wait_seconds=ACK_WAIT_SECONDS)
            if not definition.webhook.paused and name not in self._running:
                self._running[name] = self._begin(definition)
        for name in await self._durables.names(prefix=CONSUMERS):
            if name not in wanted:
                await self._durables.remove(name)
        places = {each.place for each in wanted.values()}
        if self._known is None or not self._known <= places:
            await self._ledger.keep_only(places)
        self._known = places

    async def _beginning(self, definition: Definition) -> StartAt:
        """Where its consumer begins: where it was said, or at what still waits from before a replay."""
        start = definition.start
        for name in await self._durables.names(prefix=definition.consumer.rpartition("-")[0] + "-"):
            info = await self._durables.info(name) or {}
            if not info.get("num_pending") and not info.get("num_ack_pending"):
                continue
            floor = max(int(info["ack_floor"]["stream_seq"]), int(info["config"].get("opt_start_seq") or 1) - 1)
            if start.after is not None:
                start = StartAt(after=min(start.after, floor))
            elif start.since is not None:
                first = await self._events.time_of_next(floor)
                if first is not None and parse_timestamp(first) < parse_timestamp(start.since):
                    start = StartAt(after=floor)
        return start

    def _begin(self, definition: Definition) -> _Running:
        worker = self._worker(definition)
        logger.info("webhook %s: delivering to %s", definition.name, definition.webhook.spec.url)
        return _Running(worker, asyncio.create_task(worker.run(), name=f"webhook {definition.name}"))

    def _worker(self, definition: Definition) -> Worker:
        return Worker(
            definition,
            bus=self._bus,
            sender=self._sender,
            secrets=lambda: self._signers(definition),
            ledger=self._ledger,
            origins=self._origins,
            delays=self._delays,
            gone=self._gone,
        )

    def _signers(self, definition: Definition) -> Sequence[Secret]:
        """The newest secret, and the one before it while receivers change over."""
        name, webhook = definition.name, definition.webhook
        versions = [webhook.secret] + ([webhook.secret - 1] if webhook.overlaps(time.time()) else [])
        return [self._secrets.of(name, key=webhook.key, version=version) for version in versions]

    async def _send(self, definition: Definition, *, id: str, body: bytes) -> Result:
        return await self._worker(definition).send(id=id, body=body)

    async def _gone(self, definition: Definition, reason: str) -> None:
        subject = hub_command(principal=PRINCIPAL, aggregate="webhook", id=definition.name, verb=PauseWebhook.VERB)
        command = wrap(PauseWebhook(reason=reason), id=new_id(), source=PRINCIPAL, time=timestamp(datetime.now(UTC)))
        try:
            await enqueue(self._bus, subject, command)
        except CalqueError as error:
            logger.warning("webhook %s can't be paused yet: %s", definition.name, error)

    async def _set_up(self) -> None:
        """The hub makes ``EVENTS`` at its first start: until then there is nothing to deliver."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                await self._ledger.open()
                await self._registry.load()
                await self.step()
            except CalqueError as error:
                if time.monotonic() >= deadline:
                    raise
                logger.info("not ready yet: %s", error)
                await asyncio.sleep(SET_UP_AGAIN_SECONDS)
            else:
                return

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._registry.changes()) as changes:
            async for _ in changes:
                self._changed.set()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.step()
            except CalqueError as error:
                logger.warning("webhooks can't be brought in step yet: %s", error)
                self._changed.set()
                await asyncio.sleep(SET_UP_AGAIN_SECONDS)

    def _note(self, done: asyncio.Task[None]) -> None:
        if not done.cancelled() and not self.failed.done() and (error := done.exception()) is not None:
            self.failed.set_exception(error)


def _consumer(definition: Definition, start: StartAt) -> Mapping[str, Any]:
    where: dict[str, Any] = {"deliver_policy": "by_start_sequence", "opt_start_seq": (start.after or 0) + 1}
    if start.after is None and start.since is not None:
        where = {"deliver_policy": "by_start_time", "opt_start_time": start.since}
    return {**where, "filter_subjects": subjects(definition.webhook.spec), "description": definition.name}
