"""Answers principals that ask for durable subscriptions. Who asks stands in the subject: the account pins it.

A subscription that is opened again gets a new consumer behind what was acknowledged, and the old one is removed after.
So everything that was delivered and not acknowledged comes again at once and in order, no pull of a former reader takes
any of it away, and a former reader that still lives is told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from bus.subscriptions import Place, Places
from hub.domain.event_filters import subjects_of
from schemas.envelope import Envelope, parse_timestamp, timestamp
from schemas.names import check_name
from schemas.problems import CalqueError, Problem, conflict, invalid, temporary
from schemas.subjects import SUBSCRIPTIONS_PER_PRINCIPAL, SubjectError, principal_of, subscription_consumers
from schemas.subscriptions import (
    STREAM,
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

PRINCIPAL, NAME, SESSION, CREATED = "principal", "subscription", "session", "created"
LISTS = ("sites", "types", "apps")
MOST_APPS = 50


class Subscriptions:
    """One method per act. Each raises :class:`CalqueError` with the problem that the caller gets."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._one_by_one = asyncio.Lock()

    async def subscribe(self, request: Subscribe, _envelope: Envelope, subject: str) -> SubscriptionView:
        """``subscribe``"""
        principal = _sender(subject)
        if problem := _wrong(request):
            raise CalqueError(problem)
        async with self._one_by_one:
            mine = await self._of(principal)
            there = max((place for place in mine if place.notes[NAME] == request.name), key=_age, default=None)
            if there is not None:
                return await self._resumed(there, request, mine)
            if request.again:
                message = f"subscription {request.name!r} was ended"
                raise CalqueError(conflict("name", message, "open it anew"))
            return await self._opened(principal, request, mine)

    async def subscriptions(self, _request: ListSubscriptions, _envelope: Envelope, subject: str) -> SubscriptionsView:
        """``subscriptions``"""
        return _listed(await self._of(_sender(subject)))

    async def subscriptions_of(
        self, request: ListSubscriptionsOf, _envelope: Envelope, _subject: str
    ) -> SubscriptionsView:
        """``subscriptions_of``"""
        return _listed(await self._of(request.principal))

    async def unsubscribe(self, request: Unsubscribe, _envelope: Envelope, subject: str) -> Unsubscribed:
        """``unsubscribe``"""
        return await self._remove(_sender(subject), request.name)

    async def unsubscribe_for(self, request: UnsubscribeFor, _envelope: Envelope, _subject: str) -> Unsubscribed:
        """``unsubscribe_for``"""
        return await self._remove(request.principal, request.name)

    async def _opened(self, principal: str, request: Subscribe, mine: list[Place]) -> SubscriptionView:
        if len({place.notes[NAME] for place in mine}) >= SUBSCRIPTIONS_PER_PRINCIPAL:
            message = f"{principal} has {SUBSCRIPTIONS_PER_PRINCIPAL} subscriptions, and may not have more"
            raise CalqueError(conflict("name", message, "end one: calque subscription delete"))
        notes = {
            PRINCIPAL: principal,
            NAME: request.name,
            SESSION: request.session,
            CREATED: timestamp(datetime.now(UTC)),
            **{each: json.dumps(sorted(set(getattr(request, each) or ()))) for each in LISTS},
        }
        place = await self._made(notes, after=await self._start(request), mine=mine)
        return SubscriptionView(subscription=_described(place))

    async def _made(self, notes: Mapping[str, str], *, after: int, mine: list[Place]) -> Place:
        """A new consumer under a name that is free."""
        filters = subjects_of(sites=_list(notes, "sites"), types=_list(notes, "types"))
        if isinstance(filters, Problem):
            raise CalqueError(filters)
        used = {place.consumer for place in mine}
        for consumer in subscription_consumers(notes[PRINCIPAL]):
            if consumer not in used:
                place = await self._places.create(consumer, after=after, filters=filters, notes=notes)
                if place is not None:  # else another hub took the name at this moment
                    return place
        raise CalqueError(temporary("contended", "all consumers of the principal are in use; try again"))

    async def _resumed(self, there: Place, request: Subscribe, mine: list[Place]) -> SubscriptionView:
        for each in LISTS:
            wanted = getattr(request, each)
            if wanted is not None and sorted(set(wanted)) != _list(there.notes, each):
                has = ", ".join(_list(there.notes, each)) or "all"
                message = f"subscription {request.name!r} has other {each}: {has}"
                raise CalqueError(conflict(each, message, "leave them out, or delete the subscription first"))
        if request.again and there.notes.get(SESSION, "") != request.session:
            message = f"another reader has taken over subscription {request.name!r}"
            raise CalqueError(conflict("session", message, "read it in one place only, or use another name"))
        notes = {**there.notes, SESSION: request.session}
        place = await self._made(notes, after=there.acknowledged, mine=mine)
        for former in mine:
            if former.notes[NAME] == request.name:
                await self._places.remove(former.consumer)
        return SubscriptionView(subscription=_described(place), resumed=True)

    async def _start(self, request: Subscribe) -> int:
        if request.sequence is not None:
            return max(request.sequence - 1, 0)
        if request.time is not None:
            return await self._places.last_before(timestamp(parse_timestamp(request.time)))
        return 0 if request.start == "first" else await self._places.last_sequence()

    async def _remove(self, principal: str, name: str | None) -> Unsubscribed:
        async with self._one_by_one:
            found = [place for place in await self._of(principal) if name in (None, place.notes[NAME])]
            ended = {place.notes[NAME] for place in found if await self._places.remove(place.consumer)}
            return Unsubscribed(names=tuple(sorted(ended)))

    async def _of(self, principal: str | None) -> list[Place]:
        places = [place for place in await self._places.all() if NAME in place.notes and PRINCIPAL in place.notes]
        return [place for place in places if principal in (None, place.notes[PRINCIPAL])]


def _age(place: Place) -> str:
    return place.made


def _wrong(request: Subscribe) -> Problem | None:
    if problem := check_name(request.name, field="name"):
        return problem
    if request.time is not None:
        try:
            parse_timestamp(request.time)
        except ValueError:
            return invalid("time", f"{request.time!r} is not a time", "write it as RFC 3339 says")
    if request.time is not None and request.sequence is not None:
        return invalid("time", "a subscription begins at a sequence or at a time", "leave one of them out")
    if len(request.apps or ()) > MOST_APPS:
        return invalid("apps", f"{len(request.apps or ())} apps are more than {MOST_APPS}", "name fewer")
    if len(request.session) > 100:
        return invalid("session", "it is longer than 100 characters", "use a UUID")
    return None


def _sender(subject: str) -> str:
    try:
        return principal_of(subject)
    except SubjectError as error:
        raise CalqueError(invalid("subject", str(error))) from None


def _listed(places: list[Place]) -> SubscriptionsView:
    newest = {(place.notes[PRINCIPAL], place.notes[NAME]): place for place in sorted(places, key=_age)}
    return SubscriptionsView(subscriptions=tuple(_described(newest[key]) for key in sorted(newest)))


def _described(place: Place) -> SubscriptionPlace:
    info, notes = place.info, place.notes
    return SubscriptionPlace(
        principal=notes[PRINCIPAL],
        name=notes[NAME],
        consumer=place.consumer,
        stream=STREAM,
        sites=tuple(_list(notes, "sites")),
        types=tuple(_list(notes, "types")),
        apps=tuple(_list(notes, "apps")),
        created_at=notes.get(CREATED, ""),
        acknowledged=place.acknowledged,
        delivered=info["delivered"]["stream_seq"],
        unacknowledged=info.get("num_ack_pending", 0),
        pending=info.get("num_pending", 0),
    )


def _list(notes: Mapping[str, str], name: str) -> list[str]:
    try:
        return [str(each) for each in json.loads(notes.get(name, "[]"))]
    except ValueError:
        raise CalqueError(temporary("jetstream", f"the notes of a subscription are damaged: {name}")) from None
