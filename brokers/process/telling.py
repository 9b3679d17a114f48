"""Log lines on the bus: fire and forget, over a connection of their own that requests never wait for."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from brokers.process.settings import ProcessSettings
from bus.connection import Bus, BusSettings
from schemas import subjects
from schemas.envelope import timestamp, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.signals import LogLine

logger = logging.getLogger(__name__)

_QUEUE_LINES = 10_000
_RETRY_SECONDS = 2.0


class LogTeller:
    """Publishes the lines that it is told. What can't be sent is dropped: the log files have it."""

    def __init__(self, settings: ProcessSettings) -> None:
        self._settings = settings
        self._source = f"calque-{settings.kind}-{settings.name}"
        self._lines: asyncio.Queue[LogLine] = asyncio.Queue(_QUEUE_LINES)
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send_for_ever(), name="tell log lines")

    async def stop(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})

    def tell(self, instance: str, service: str, line: str) -> None:
        """Publish one line, soon."""
        try:
            self._lines.put_nowait(LogLine(instance=instance, service=service, line=line))
        except asyncio.QueueFull:
            logger.debug("a line of %s was not published: too many wait", service)

    async def _send_for_ever(self) -> None:
        section = self._settings.bus
        settings = BusSettings(
            servers=list(section.servers), nkey_seed_file=section.nkey_seed_file, name=f"{section.name} logs"
        )
        while True:
            try:
                bus = await Bus.connect(settings)
                try:
                    await self._send(bus)
                finally:
                    await bus.close()
            except (CalqueError, OSError, TimeoutError) as error:
                logger.warning("log lines are not published now: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _send(self, bus: Bus) -> None:
        while True:
            line = await self._lines.get()
            subject = subjects.log(site=self._settings.site, instance=line.instance, service=line.service)
            envelope = wrap(line, id=new_id(), source=self._source, time=timestamp(datetime.now(UTC)))
            await bus.publish(subject, envelope)
