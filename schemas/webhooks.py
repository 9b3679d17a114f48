"""Webhooks: events sent on as HTTP requests. What one is, and what is asked about its deliveries.

A webhook is an aggregate of the hub; its id is its name. Deliveries are made by a process of their own, which answers
the questions about them; the secret that signs them is told to a key made for that one question, and never stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from schemas.base import Fact
from schemas.names import check_name, check_site
from schemas.problems import Problem, invalid
from schemas.questions import Query, View
from schemas.registry import message
from schemas.secrets import Sealed
from schemas.values import Requester

MOST_ATTEMPTS = 50
MOST_FILTERS = 50
LONGEST_TIMEOUT_SECONDS = 60.0
_TYPE = re.compile(r"(?:[a-z_]+|\*)(?:\.(?:[a-z_]+|\*))?")


class WebhookSpec(Fact, frozen=True, kw_only=True):
    """Where events go and which. Empty filters let all through.

    ``types`` are ``<aggregate>.<event>``, either of them ``*``, the second may be left out: ``image.saved``,
    ``copy``, ``*.failed``. ``apps`` are names or ids of instances: what happens to them and in operations on them.
    ``attempts`` is how often one event is tried before it is put aside as a dead letter.
    """

    url: str
    types: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    attempts: int = 20
    timeout_seconds: float = 15.0


class StartAt(Fact, frozen=True, kw_only=True):
    """Where in the record deliveries begin: after a sequence, or at the first event since a moment (RFC 3339)."""

    after: int | None = None
    since: str | None = None


def check_webhook(name: str, spec: WebhookSpec) -> Iterator[Problem]:
    """All that is wrong with a webhook."""
    if problem := check_name(name, field="name"):
        yield problem
    yield from _url(spec.url)
    for number, kind in enumerate(spec.types):
        if not _TYPE.fullmatch(kind):
            yield invalid(
                f"types[{number}]", f"{kind!r} is no type of event", "write image.saved, copy.*, *.failed or image"
            )
    for number, site in enumerate(spec.sites):
        if site != "hub" and (problem := check_site(site, field=f"sites[{number}]")):
            yield problem
    for field in ("types", "sites", "apps"):
        if len(getattr(spec, field)) > MOST_FILTERS:
            yield invalid(field, f"more than {MOST_FILTERS}", "use wildcards, or a second webhook")
    if not 1 <= spec.attempts <= MOST_ATTEMPTS:
        yield invalid("attempts", f"{spec.attempts} is out of range", f"use 1 to {MOST_ATTEMPTS}")
    if not 0 < spec.timeout_seconds <= LONGEST_TIMEOUT_SECONDS:
        yield invalid(
            "timeout_seconds", f"{spec.timeout_seconds} is out of range", f"use up to {LONGEST_TIMEOUT_SECONDS:g} s"
        )


def _url(url: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        yield invalid("url", "it is no URL", "write https://host/path")
        return
    if parts.scheme not in ("http", "https") or not parts.hostname or (port is not None and port < 1):
        yield invalid("url", f"{url!r} is no address to send to", "write https://host/path")
    elif parts.username or parts.password:
        yield invalid(
            "url", "it holds credentials, which would be stored in the record", "leave them out: bodies are signed"
        )
    elif parts.fragment or re.search(r"\s|[\x00-\x1f]", url):
        yield invalid("url", "it has a fragment or a space", "leave it out")


# --- what the hub says


class WebhookView(Fact, frozen=True, kw_only=True):
    """A webhook as it is defined. ``reason`` says why it is paused."""

    name: str
    spec: WebhookSpec
    state: Literal["active", "paused"]
    reason: str = ""
    generation: int = 1
    added_by: str = ""
    added_at: str = ""


@message("query.webhooks")
class WebhooksQuery(Query, frozen=True, kw_only=True):
    """All webhooks, or the one of a name."""

    name: str | None = None


@message("view.webhooks")
class WebhooksView(View, frozen=True, kw_only=True):
    """Webhooks by name."""

    webhooks: tuple[WebhookView, ...]


# --- what the process that delivers says


class DeliveryView(Fact, frozen=True, kw_only=True):
    """One attempt. ``status`` is that of the answer, ``None`` when there was none; ``again_at`` when it is repeated."""

    webhook: str
    event: str
    type: str
    sequence: int
    attempt: int
    at: str
    outcome: Literal["delivered", "failed", "dead"]
    status: int | None = None
    message: str = ""
    seconds: float = 0.0
    again_at: str | None = None


class WebhookStatus(Fact, frozen=True, kw_only=True):
    """How far a webhook is: events that wait, those that are tried again, dead letters, and the last attempt."""

    name: str
    waiting: int
    retrying: int
    dead: int
    last: DeliveryView | None = None


class DeadLetter(Fact, frozen=True, kw_only=True):
    """An event that was given up. ``sequence`` is the event's in the record, and names the letter."""

    webhook: str
    sequence: int
    event: str
    type: str
    attempts: int
    reason: str
    at: str


@message("query.webhook_status")
class WebhookStatusQuery(Query, frozen=True, kw_only=True):
    """How far the webhooks are: all, or one."""

    name: str | None = None


@message("view.webhook_status")
class WebhookStatusView(View, frozen=True, kw_only=True):
    """By name."""

    webhooks: tuple[WebhookStatus, ...]


@message("query.webhook_deliveries")
class WebhookDeliveriesQuery(Query, frozen=True, kw_only=True):
    """The last attempts of a webhook."""

    name: str
    limit: int = 20


@message("view.webhook_deliveries")
class WebhookDeliveriesView(View, frozen=True, kw_only=True):
    """Attempts, newest last."""

    deliveries: tuple[DeliveryView, ...]


@message("query.webhook_dead")
class WebhookDeadQuery(Query, frozen=True, kw_only=True):
    """Dead letters: all, or those of one webhook."""

    name: str | None = None
    limit: int = 1000


@message("view.webhook_dead")
class WebhookDeadView(View, frozen=True, kw_only=True):
    """Dead letters, oldest first."""

    letters: tuple[DeadLetter, ...]


@message("act.webhook_secret")
class RevealWebhookSecret(Query, frozen=True, kw_only=True):
    """The secret that signs a webhook's deliveries, sealed to ``public_key`` (X25519, hexadecimal)."""

    name: str
    public_key: str


@message("view.webhook_secret")
class WebhookSecretView(View, frozen=True, kw_only=True):
    """The secret (text that begins with ``whsec_``), sealed."""

    secret: Sealed


@message("act.webhook_test")
class SendTestEvent(Query, frozen=True, kw_only=True):
    """Send a made-up event now, once."""

    name: str


@message("view.webhook_test")
class WebhookTestView(View, frozen=True, kw_only=True):
    """How that went."""

    delivery: DeliveryView


@message("act.webhook_retry")
class RetryDeadLetters(Query, frozen=True, kw_only=True):
    """Try dead letters once more, now: those of these sequences, or all of the webhook (at most ``limit``)."""

    name: str
    sequences: tuple[int, ...] = ()
    limit: int = 100


@message("view.webhook_retry")
class RetriedView(View, frozen=True, kw_only=True):
    """What was delivered is no dead letter any more."""

    deliveries: tuple[DeliveryView, ...]
    left: int


@message("act.webhook_discard")
class DiscardDeadLetters(Query, frozen=True, kw_only=True):
    """Throw dead letters away: those of these sequences, or all of the webhook."""

    name: str
    sequences: tuple[int, ...] = ()


@message("view.webhook_discard")
class DiscardedView(View, frozen=True, kw_only=True):
    """How many there were."""

    discarded: int


@message("webhook.test")
class WebhookTested(View, frozen=True, kw_only=True):
    """The data of the made-up event of a test; its type is ``calque.webhook.test.v1``."""

    webhook: str
    by: Requester
