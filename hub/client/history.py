"""Reads the record of events, from any point in the past and on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

from bus.connection import Bus
from bus.events import Recorded
from bus.feed import EventsFeed
from hub.client.errors import NotFoundError, client_error, unreachable
from schemas import subjects
from schemas.events import TemplateApplied
from schemas.names import template_token
from schemas.problems import CalqueError, invalid, not_found
from schemas.queries import TemplateView
from schemas.values import Template


class EventFilter(NamedTuple):
    """Which events are wanted; ``None`` is all. ``type`` is a part of the type, such as ``copy.committed``."""

    site: str | None = None
    aggregate: str | None = None
    id: str | None = None
    type: str | None = None

    @property
    def subject(self) -> str:
        """The narrowest filter of subjects that lets all of them through."""
        kind, _, wanted = (self.aggregate or "").partition("/")
        parts = (self.site or "*", kind or "*", self.id or wanted or "*")
        return subjects.events_matching(*parts)

    def takes(self, event: Recorded) -> bool:
        """Whether ``event`` is wanted. ``aggregate`` may be a kind, or a kind and an id: ``image/<id>``."""
        kind, _, wanted = (self.aggregate or "").partition("/")
        return (
            (self.site is None or event.writer == self.site)
            and (not kind or event.aggregate == kind)
            and (not wanted or event.id == wanted)
            and (self.id is None or event.id == self.id)
            and (self.type is None or self.type in event.envelope.type)
        )


async def read_events(
    bus: Bus, *, after: int | None, since: str | None = None, follow: bool, wanted: EventFilter = EventFilter()
) -> AsyncIterator[Recorded]:
    """Events in the order of the record. Without ``after`` and ``since``: all, or with ``follow`` those to come.

    Without ``follow`` it ends at what was the last event when it began.
    """
    feed = EventsFeed(bus)
    try:
        subject = wanted.subject
    except subjects.SubjectError as error:
        problem = invalid("filter", str(error), "write sites, kinds and ids as 'calque events' shows them")
        raise client_error(problem) from None
    try:
        last = await feed.last_sequence()
    except CalqueError as error:
        raise client_error(error.problem) from None
    start = after if after is not None else last if follow and since is None else 0
    reading = feed.read_direct(after=start, since=since, filter_subject=subject, follow=follow)
    async with aclosing(reading) as batches:
        async for batch in batches:
            for event in batch:
                if not follow and event.sequence > last:
                    return
                if wanted.takes(event):
                    yield event


async def applied_template(bus: Bus, view: TemplateView, *, timeout_seconds: float) -> Template:
    """The content of a version that the hub lists, from the event that recorded it.

    Raises :class:`NotFoundError`, or :class:`HubUnreachableError` when the record can't be read in time.
    """
    subject = subjects.event(
        writer=subjects.HUB, aggregate="template", id=template_token(view.name, view.version), event="applied"
    )
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            aclosing(EventsFeed(bus).read_direct(filter_subject=subject)) as batches,
        ):
            async for batch in batches:
                for recorded in batch:
                    if isinstance(recorded.event, TemplateApplied):
                        return recorded.event.template
    except TimeoutError:
        raise unreachable("the record of events was not read in time") from None
    message = f"{view.name}@{view.version} is not in the record"
    raise NotFoundError(not_found("template", message, "see 'calque template list'"))
