"""Events of a site itself: its brokers, its secrets (the aggregate's id is the name), what it says of itself."""

from __future__ import annotations

from schemas.events.base import Event
from schemas.registry import event
from schemas.values import (
    AcceptedImages,
    BrokerKind,
    Plan,
    Requester,
)


@event("secret", "set")
class SecretSet(Event, frozen=True, kw_only=True):
    """Somebody gave the site a secret; ``version`` counts how often one of this name was set."""

    version: int
    by: Requester


@event("secret", "removed")
class SecretRemoved(Event, frozen=True, kw_only=True):
    """Somebody took a secret away from the site."""

    by: Requester


@event("broker", "registered")
class BrokerRegistered(Event, frozen=True, kw_only=True):
    """A broker answered discovery. The aggregate's id is ``<kind>-<name>``.

    ``attributes`` are the names that its bindings offer to templates; ``hooks`` the kinds of hooks that a platform
    can call; ``signing_key`` is what a repository signs manifests with.
    """

    kind: BrokerKind
    name: str
    version: str
    signing_key: str = ""
    types: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()
    attributes: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    copy_formats: tuple[str, ...] = ()
    engine: str = ""
    engine_version: str = ""
    hooks: tuple[str, ...] = ("http",)
    can_attach: bool = False
    limits: tuple[str, ...] = ()
    can_mask: bool = False


@event("broker", "lost")
class BrokerLost(Event, frozen=True, kw_only=True):
    """A broker no longer answers."""

    kind: BrokerKind
    name: str


@event("site", "announced")
class SiteAnnounced(Event, frozen=True, kw_only=True):
    """A site's agent says who it is: written when anything of it changes.

    ``seal_key`` is the public X25519 key (hex) to which secrets for this site are sealed;
    ``crb_fingerprint`` the SHA-256 (hex) of its copy repository's certificate, ``crb_fingerprints`` that of each
    of them by the repository's name. ``images`` says which images come in: ``any``, or only ``masked`` ones.
    """

    version: str
    seal_key: str
    crb_fingerprint: str = ""
    crb_fingerprints: dict[str, str] = {}
    accepts: tuple[str, ...] = ("public", "internal", "personal", "restricted")
    images: AcceptedImages = "any"
