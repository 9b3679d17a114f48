"""What the hub sends over the bus."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from bus.connection import Bus
from bus.work import enqueue
from schemas.commands import Answer
from schemas.envelope import Envelope, timestamp, wrap
from schemas.problems import CalqueError, temporary
from schemas.subjects import HUB, site_rpc

T = TypeVar("T", bound=msgspec.Struct)

ASK_SECONDS = 10.0


class BusOutbound:
    """Commands to ``CMD``, answers to inboxes, questions to sites."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def command(self, subject: str, envelope: Envelope) -> None:
        """Store a command for a site. Raises :class:`CalqueError` (temporary)."""
        await enqueue(self._bus, subject, envelope)

    async def answer(self, to: str, answer: Answer) -> None:
        """Tell the sender of a command."""
        envelope = wrap(
            answer,
            id=f"{answer.command}/answer",
            source=HUB,
            time=timestamp(datetime.now(UTC)),
            causationid=answer.command,
            operationid=answer.operation,
        )
        await self._bus.publish(to, envelope)

    async def ask_site(self, site: str, operation: str, question: msgspec.Struct, reply: type[T]) -> T:
        """Ask a site's agent. Raises :class:`CalqueError`."""
        subject = site_rpc(site=site, operation=operation)
        try:
            return await self._bus.ask(subject, question, reply, source=HUB, timeout_seconds=ASK_SECONDS)
        except CalqueError as error:
            if error.problem.code in ("unavailable", "timeout"):
                raise CalqueError(
                    temporary(
                        "site_unavailable",
                        f"site {site} does not answer ({error.problem.code})",
                        retry_after_seconds=5.0,
                        field="site",
                    )
                ) from None
            raise
