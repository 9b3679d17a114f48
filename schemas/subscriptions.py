"""Durable subscriptions to the record of events: how a principal opens, lists and ends its own.

A subscription is a place in the record that the hub's server keeps under a name: a pull consumer on ``EVENTS`` with
acknowledgements. The hub makes it (``calque.act.<principal>.subscribe``) and says how the consumer is called; pulling
and acknowledging is between the principal and the server, with any NATS client.
"""

from __future__ import annotations

from typing import Literal

from schemas.base import Fact
from schemas.questions import Query, View
from schemas.registry import message

STREAM = "EVENTS"


@message("act.subscribe")
class Subscribe(Query, frozen=True, kw_only=True):
    """Open the subscription ``name``: a new one, or the one that is there, at its place.

    A new one begins at ``start``: ``new`` events, the ``first`` of all, or with ``sequence`` or ``time`` (RFC 3339) at
    the first event from then on. One that is there goes on behind the last event that was acknowledged with all before
    it; ``start``, ``sequence`` and ``time`` say nothing then. What was delivered and not acknowledged comes again.

    ``sites`` (``hub`` is one) and ``types`` (``copy.committed``, or ``copy`` for all of a kind) are filters of the
    server; empty is all. ``apps`` are ids of apps, kept for the reader, who filters by them. Left out, all three stay
    as they are; other ones than the subscription has are refused.

    ``session`` is an id of the reader's own making. Who opens takes over from whoever read before. With ``again`` the
    reader wants to go on, after its connection broke: that is refused when another has taken over meanwhile.
    """

    name: str
    start: Literal["new", "first"] = "new"
    sequence: int | None = None
    time: str | None = None
    sites: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    apps: tuple[str, ...] | None = None
    session: str = ""
    again: bool = False


@message("act.subscriptions")
class ListSubscriptions(Query, frozen=True, kw_only=True):
    """The sender's subscriptions."""


@message("act.unsubscribe")
class Unsubscribe(Query, frozen=True, kw_only=True):
    """End the sender's subscription ``name``, and forget its place. One that is not there is no error."""

    name: str


@message("act.subscriptions_of")
class ListSubscriptionsOf(Query, frozen=True, kw_only=True):
    """The subscriptions of ``principal``, of everybody without it. For operators."""

    principal: str | None = None


@message("act.unsubscribe_for")
class UnsubscribeFor(Query, frozen=True, kw_only=True):
    """End a subscription of ``principal``, all of them without ``name``. For operators."""

    principal: str
    name: str | None = None


class SubscriptionPlace(Fact, frozen=True, kw_only=True):
    """A subscription. ``consumer`` is the name of its pull consumer on ``stream``.

    ``acknowledged`` is the sequence up to which all was acknowledged, ``delivered`` the last that was delivered,
    ``unacknowledged`` how many of these lack their acknowledgement, ``pending`` how many are still to be delivered.
    """

    principal: str
    name: str
    consumer: str
    stream: str
    sites: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    created_at: str = ""
    acknowledged: int = 0
    delivered: int = 0
    unacknowledged: int = 0
    pending: int = 0


@message("view.subscription")
class SubscriptionView(View, frozen=True, kw_only=True):
    """The subscription as it is now; ``resumed`` when it was there before."""

    subscription: SubscriptionPlace
    resumed: bool = False


@message("view.subscriptions")
class SubscriptionsView(View, frozen=True, kw_only=True):
    """Subscriptions, by principal and name."""

    subscriptions: tuple[SubscriptionPlace, ...] = ()


@message("view.unsubscribed")
class Unsubscribed(View, frozen=True, kw_only=True):
    """The names of the subscriptions that were ended."""

    names: tuple[str, ...] = ()
