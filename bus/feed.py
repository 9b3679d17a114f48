"""Following events of all writers in the order of one stream: ``EVENTS`` at the hub, an outbox at a site."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable

from bus.connection import Bus
from bus.direct import DirectReader
from bus.draining import Drain, Taken
from bus.jetstream import JetStream
from bus.logs import RateLimitedLog
from bus.metrics import count
from bus.reader import Stored, StreamReader
from bus.records import Recorded, record
from bus.strays import Strays
from schemas import metrics

logger = logging.getLogger(__name__)

DRAINED_AT_LEAST = 2000
"""Fewer events are read as quickly without another connection."""


class EventsFeed:
    """Reads a stream of events from any sequence, endlessly. One reader per :meth:`read`.

    ``position`` is the last sequence read, refused events included; ``strays`` counts those.
    """

    def __init__(self, bus: Bus, *, stream: str = "EVENTS") -> None:
        self._bus = bus
        self._stream = stream
        self._log = RateLimitedLog(logger)
        self.position = 0
        self.strays = Strays()

    @property
    def refused(self) -> int:
        """How many events were left out."""
        return sum(self.strays.counts().values())

    async def last_sequence(self) -> int:
        """The sequence of the last event stored now, 0 if there is none."""
        return await JetStream(self._bus).last_sequence(self._stream)

    async def read(self, *, after: int = 0, filter_subject: str | None = None) -> AsyncGenerator[list[Recorded], None]:
        """Batches of events after a sequence: in order, no gap, no repeat, over reconnects. Endless.

        An event that its writer may not have written is left out, so a batch may be empty while ``position`` grows.
        """
        self.position = after
        reader = StreamReader(self._bus, stream=self._stream, after=after, filter_subject=filter_subject)
        batches = reader.read()
        try:
            async for stored in batches:
                batch = self._accepted(stored)
                self.position = reader.position
                yield batch
        finally:
            await batches.aclose()

    async def drain(
        self, take: Callable[[list[Taken]], Iterable[Recorded]], *, after: int, until: int | None = None
    ) -> None:
        """Have ``take`` called with what is stored now behind a sequence, in a thread of its own: for catching up.

        It is given everything, and returns what a writer may not have written; what it raises ends this. ``position``
        says how far it came: that may be less than all (or than ``until``), and nothing when there is little.
        :meth:`read` goes on from there.
        """
        self.position = after
        if await self.last_sequence() - after < DRAINED_AT_LEAST:
            return
        drain = Drain(self._bus.settings, stream=self._stream, after=after, until=until)

        def work() -> None:
            for batch in drain.read():
                for refused in take(batch):
                    subject = next(each[1] for each in batch if each[0] == refused.sequence)
                    self._refuse(refused, refused.refused or "", subject)
                self.position = drain.position

        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            drain.stop()
            await asyncio.wait({working})
            raise

    async def read_direct(
        self, *, after: int = 0, since: str | None = None, filter_subject: str | None = None, follow: bool = False
    ) -> AsyncGenerator[list[Recorded], None]:
        """The same by direct gets, which is what a principal may do; without ``follow`` it ends at the end.

        ``since`` (RFC 3339) begins at the first event stored then or later.
        """
        self.position = after
        reader = DirectReader(self._bus, stream=self._stream, after=after, since=since, filter_subject=filter_subject)
        batches = reader.read(follow=follow)
        try:
            async for stored in batches:
                batch = self._accepted(stored)
                self.position = reader.position
                yield batch
        finally:
            await batches.aclose()

    def _accepted(self, stored: list[Stored]) -> list[Recorded]:
        """Those events that their writer may have written."""
        batch: list[Recorded] = []
        for sequence, subject, payload in stored:
            recorded = record(sequence=sequence, subject=subject, payload=payload)
            if recorded.refused is None:
                batch.append(recorded)
            else:
                self._refuse(recorded, recorded.refused, subject)
        return batch

    def _refuse(self, recorded: Recorded, cause: str, subject: str) -> None:
        reason = cause.partition(" ")[0]
        count(metrics.REFUSED, recorded.writer, reason)
        example = f"{self._stream} {recorded.sequence} ({subject}): {cause}"
        self.strays.note(writer=recorded.writer, reason=reason, example=example)
        self._log.warning("refused", f"{self._stream} {recorded.sequence}: refused an event of {subject}: {cause}")
