"""What the client reads and hears: the record of events, durable subscriptions, heartbeats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Collection
from datetime import datetime
from typing import Literal, TypeVar

from bus.connection import Bus
from bus.events import Recorded
from hub.client.app_events import AppEvents
from hub.client.beats import Heard, listen
from hub.client.catalog import Catalog
from hub.client.history import EventFilter, read_events
from hub.client.subscriptions import Subscription, Takes, moment
from schemas import queries
from schemas.subscriptions import (
    ListSubscriptions,
    ListSubscriptionsOf,
    Subscribe,
    SubscriptionPlace,
    SubscriptionsView,
    SubscriptionView,
    Unsubscribe,
    Unsubscribed,
    UnsubscribeFor,
)

T = TypeVar("T", bound=queries.View)


class EventVerbs(Catalog):
    """Events are read in the order of the record; that holds per site, and is arbitrary between sites."""

    _bus: Bus

    async def events(
        self,
        *,
        after: int | None = None,
        since: datetime | None = None,
        follow: bool = False,
        wanted: EventFilter = EventFilter(),
        apps: Collection[str] = (),
    ) -> AsyncIterator[Recorded]:
        """The record of events: all, those after a sequence or ``since`` a moment, or (``follow``) those to come.

        ``apps`` are ids of apps; :mod:`hub.client.app_events` says which events are about an app.
        """
        about = AppEvents(apps, look=self._look) if apps else None
        async for event in read_events(self._bus, after=after, since=moment(since), follow=follow, wanted=wanted):
            if about is None or await about.takes(event):
                yield event

    def subscribe(
        self,
        name: str,
        *,
        start: Literal["new", "first"] = "new",
        sequence: int | None = None,
        since: datetime | None = None,
        sites: Collection[str] | None = None,
        types: Collection[str] | None = None,
        apps: Collection[str] | None = None,
        follow: bool = True,
    ) -> Subscription:
        """A durable subscription, to be opened with ``async with``; :mod:`hub.client.subscriptions` says how it reads.

        A new one begins at ``start``, or with the event ``sequence``, or with the first ``since`` a moment; one that is
        there goes on at its place, with the filters that it has. ``sites`` wrote the events; ``types`` are such as
        ``copy.committed`` or ``copy``; ``apps`` are ids of apps (:mod:`hub.client.app_events` says what is about an
        app). Without ``follow`` it ends when there is no more.
        """
        request = Subscribe(
            name=name,
            start=start,
            sequence=sequence,
            time=moment(since),
            sites=tuple(sites) if sites is not None else None,
            types=tuple(types) if types is not None else None,
            apps=tuple(apps) if apps is not None else None,
        )

        def opened(request: Subscribe) -> Awaitable[SubscriptionView]:
            return self._act("subscribe", request, SubscriptionView)

        def about(apps: Collection[str]) -> Takes | None:
            return AppEvents(apps, look=self._look).takes if apps else None

        return Subscription(self._bus, ask=opened, request=request, follow=follow, filters=about)

    async def subscriptions(
        self, *, principal: str | None = None, everybody: bool = False
    ) -> tuple[SubscriptionPlace, ...]:
        """One's own subscriptions; those of another ``principal``, or of ``everybody``, for operators."""
        if principal is None and not everybody:
            return (await self._act("subscriptions", ListSubscriptions(), SubscriptionsView)).subscriptions
        question = ListSubscriptionsOf(principal=principal)
        return (await self._act("subscriptions_of", question, SubscriptionsView)).subscriptions

    async def unsubscribe(self, name: str, *, principal: str | None = None) -> bool:
        """End a subscription, one's own or (for operators) another's; whether there was one."""
        if principal is None:
            return bool((await self._act("unsubscribe", Unsubscribe(name=name), Unsubscribed)).names)
        ended = await self._act("unsubscribe_for", UnsubscribeFor(principal=principal, name=name), Unsubscribed)
        return bool(ended.names)

    async def beats(self, *, senders: Collection[str], seconds: float) -> dict[str, Heard]:
        """Heartbeats of the hub (``hub``) and of sites, listened to until all ``senders`` were heard."""
        return await listen(self._bus, senders=senders, seconds=seconds)
