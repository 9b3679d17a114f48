"""Events of copies (written by the site where each was made), of where they lie (by the site of the repository), of
images (by the site where each was saved), and of whose images a site trusts."""

from __future__ import annotations

from schemas.events.base import Event
from schemas.problems import Problem
from schemas.registry import event
from schemas.values import (
    CopySummary,
    ImageContent,
    Level,
    Requester,
)


@event("copy", "preparing")
class CopyPreparing(Event, frozen=True, kw_only=True):
    """A copy of one data service was begun."""

    instance: str
    data_service: str
    image: str
    broker: str


@event("copy", "prepared")
class CopyPrepared(Event, frozen=True, kw_only=True):
    """Its moment is fixed."""

    moment: str
    level: Level


@event("copy", "copying")
class CopyCopying(Event, frozen=True, kw_only=True):
    """Its data streams to a repository."""

    repository: str


@event("copy", "committed")
class CopyCommitted(Event, frozen=True, kw_only=True):
    """All of it is stored and its manifest verified."""

    repository: str
    summary: CopySummary


@event("copy", "failed")
class CopyFailed(Event, frozen=True, kw_only=True):
    """It came to nothing; its parts are removed."""

    problem: Problem


@event("copy", "expired")
class CopyExpired(Event, frozen=True, kw_only=True):
    """It is deleted everywhere that this site knows of."""


@event("location", "added")
class LocationAdded(Event, frozen=True, kw_only=True):
    """A copy lies in a repository: the aggregate's id is ``names.location_token``. ``found`` when the site did not put
    it there itself but came upon it. ``keep_until`` (RFC 3339, UTC): it can't be deleted there before that."""

    copy: str
    repository: str
    image: str
    stored: int = 0
    found: bool = False
    keep_until: str = ""


@event("location", "removed")
class LocationRemoved(Event, frozen=True, kw_only=True):
    """A copy no longer lies in a repository."""

    copy: str
    repository: str


@event("location", "lost")
class LocationLost(Event, frozen=True, kw_only=True):
    """A copy lies no longer where it lay, and this site did not remove it."""

    copy: str
    repository: str


@event("image", "saving")
class ImageSaving(Event, frozen=True, kw_only=True):
    """An image is being made from an instance."""

    instance: str
    instance_name: str
    template: str
    copies: dict[str, str] = {}


@event("image", "saved")
class ImageSaved(Event, frozen=True, kw_only=True):
    """Every copy is committed and its manifest verified."""

    content: ImageContent


@event("image", "failed")
class ImageFailed(Event, frozen=True, kw_only=True):
    """The image came to nothing."""

    problem: Problem


@event("image", "found")
class ImageFound(Event, frozen=True, kw_only=True):
    """A site came upon an image that it did not make: the manifest lies in ``repository`` (``<site>/<name>``), signed
    by the key ``signer``, which the site trusts, and all copies that it names lie at the site."""

    content: ImageContent
    repository: str
    signer: str


@event("signer", "trusted")
class SignerTrusted(Event, frozen=True, kw_only=True):
    """From here on the site takes what is signed by this key, which is the aggregate's id (Ed25519, hex)."""

    by: Requester
