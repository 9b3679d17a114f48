"""Events that the hub writes: templates, the catalog, names, members, webhooks."""

from __future__ import annotations

from typing import Literal

from schemas.events.base import Event
from schemas.problems import Problem
from schemas.registry import event
from schemas.values import (
    Requester,
    Template,
)
from schemas.webhooks import StartAt, WebhookSpec


@event("template", "applied")
class TemplateApplied(Event, frozen=True, kw_only=True):
    """A version of a template was recorded; ``digest`` is the SHA-256 of its canonical content."""

    template: Template
    digest: str
    by: Requester


@event("webhook", "added")
class WebhookAdded(Event, frozen=True, kw_only=True):
    """Somebody had events sent on to a URL. The aggregate's id is the webhook's name; without ``start``, those that
    follow this one."""

    spec: WebhookSpec
    by: Requester
    start: StartAt | None = None


@event("webhook", "removed")
class WebhookRemoved(Event, frozen=True, kw_only=True):
    """The webhook is gone; its name is free."""

    by: Requester


@event("webhook", "paused")
class WebhookPaused(Event, frozen=True, kw_only=True):
    """Nothing is sent; events wait."""

    by: Requester
    reason: str = ""


@event("webhook", "resumed")
class WebhookResumed(Event, frozen=True, kw_only=True):
    """Events are sent again."""

    by: Requester


@event("webhook", "replayed")
class WebhookReplayed(Event, frozen=True, kw_only=True):
    """Events are sent again from ``start`` on; ``generation`` counts these."""

    by: Requester
    start: StartAt
    generation: int


@event("webhook", "rotated")
class WebhookRotated(Event, frozen=True, kw_only=True):
    """There is a new signing secret, the ``version``-th."""

    by: Requester
    version: int


@event("catalog", "entered")
class CatalogEntered(Event, frozen=True, kw_only=True):
    """An image got a name. The aggregate's id is the image's. ``origin`` says whether it was saved by a command, or
    found by ``site`` in one of its repositories."""

    origin: Literal["saved", "found"] = "saved"
    name: str
    site: str
    instance: str
    by: Requester
    tags: tuple[str, ...] = ()
    comment: str = ""


@event("catalog", "edited")
class CatalogEdited(Event, frozen=True, kw_only=True):
    """What the catalog says of an image was changed; what is ``None`` stayed."""

    by: Requester
    name: str | None = None
    tags: tuple[str, ...] | None = None
    comment: str | None = None


@event("catalog", "withdrawn")
class CatalogWithdrawn(Event, frozen=True, kw_only=True):
    """The image was never saved: its entry is void and its name free."""

    problem: Problem | None = None


@event("catalog", "deleted")
class CatalogDeleted(Event, frozen=True, kw_only=True):
    """The image is deleted: a tombstone; its copies follow."""

    by: Requester


@event("claim", "taken")
class ClaimTaken(Event, frozen=True, kw_only=True):
    """A name belongs to ``owner`` (an aggregate's id)."""

    owner: str


@event("claim", "released")
class ClaimReleased(Event, frozen=True, kw_only=True):
    """The name is free."""

    owner: str


@event("membership", "joined")
class SiteJoined(Event, frozen=True, kw_only=True):
    """The hub heard of a site. The aggregate's id is the site's name."""


@event("membership", "online")
class SiteOnline(Event, frozen=True, kw_only=True):
    """The site's heartbeats arrive."""


@event("membership", "stale")
class SiteStale(Event, frozen=True, kw_only=True):
    """No heartbeat for a while; the site's apps are shown stale, not down."""


@event("membership", "offline")
class SiteOffline(Event, frozen=True, kw_only=True):
    """No heartbeat for long."""
