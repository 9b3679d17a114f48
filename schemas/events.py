"""Events: facts, past tense, never changed. ``AGGREGATE`` and ``EVENT`` are those of the subject.

A site writes the aggregates ``instance``, ``copy``, ``location``, ``image``, ``signer``, ``operation``, ``command``,
``broker``, ``secret`` and ``site``; the hub writes ``template``, ``catalog``, ``claim``, ``operation``, ``command``,
``webhook`` and ``membership``. No event holds a secret.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from schemas.base import Fact
from schemas.operations import Step
from schemas.problems import Problem
from schemas.registry import event
from schemas.values import (
    Artifact,
    Attachment,
    Binding,
    BrokerKind,
    Cleanup,
    CopySummary,
    DataServiceSpec,
    ImageContent,
    Level,
    Origin,
    Plan,
    Requester,
    Template,
    Value,
)
from schemas.webhooks import StartAt, WebhookSpec


class Event(Fact, frozen=True, kw_only=True):
    """The base of all events."""

    TYPE: ClassVar[str]
    AGGREGATE: ClassVar[str]
    EVENT: ClassVar[str]


# --- operation (site and hub): one long-running job


@event("operation", "accepted")
class OperationAccepted(Event, frozen=True, kw_only=True):
    """An operation was accepted with its whole plan. Its id is that of the command which started it.

    ``request`` is the data of the command (no secrets), so that the saga needs nothing else to go on.
    """

    kind: str
    target: str
    name: str
    by: Requester
    steps: tuple[Step, ...]
    request: dict[str, Any] = {}
    parent: str | None = None
    deadline_seconds: float = 3600.0


@event("operation", "step_started")
class StepStarted(Event, frozen=True, kw_only=True):
    """An attempt at a step began."""

    step: str
    attempt: int


@event("operation", "step_succeeded")
class StepSucceeded(Event, frozen=True, kw_only=True):
    """A step is done. ``result`` is what later steps need (never a secret)."""

    step: str
    attempt: int
    result: dict[str, Any] = {}


@event("operation", "step_failed")
class StepFailed(Event, frozen=True, kw_only=True):
    """An attempt failed. ``final`` when the step is not tried again."""

    step: str
    attempt: int
    problem: Problem
    final: bool


@event("operation", "cancel_requested")
class CancelRequested(Event, frozen=True, kw_only=True):
    """Somebody asked to cancel; no new step starts, what was done is undone."""

    by: Requester


@event("operation", "undo_started")
class UndoStarted(Event, frozen=True, kw_only=True):
    """The operation goes back: nothing new starts, and what was done is undone in reverse order."""

    problem: Problem | None = None
    cancelled: bool = False


@event("operation", "step_undone")
class StepUndone(Event, frozen=True, kw_only=True):
    """The effect of a step is gone."""

    step: str


@event("operation", "step_undo_failed")
class StepUndoFailed(Event, frozen=True, kw_only=True):
    """An attempt to undo failed; it is repeated until it works."""

    step: str
    attempt: int
    problem: Problem


@event("operation", "succeeded")
class OperationSucceeded(Event, frozen=True, kw_only=True):
    """Every step is done."""

    result: dict[str, Any] = {}


@event("operation", "failed")
class OperationFailed(Event, frozen=True, kw_only=True):
    """The operation failed; ``cleanup`` says whether what it had made is gone."""

    problem: Problem
    cleanup: Cleanup = "none"


@event("operation", "cancelled")
class OperationCancelled(Event, frozen=True, kw_only=True):
    """The operation was cancelled; ``cleanup`` says whether what it had made is gone."""

    cleanup: Cleanup = "none"


@event("operation", "cleaned_up")
class OperationCleanedUp(Event, frozen=True, kw_only=True):
    """Clean-up that was pending when the operation ended is done."""


# --- command: what became of it, so that the same command gets the same answer for ever


@event("command", "rejected")
class CommandRejected(Event, frozen=True, kw_only=True):
    """A command was refused. The aggregate's id is the command's."""

    problem: Problem
    kind: str


@event("command", "accepted")
class CommandAccepted(Event, frozen=True, kw_only=True):
    """A site accepted a command: stored together with what it led to, in the aggregate that a rejection would stand in,
    so that a command is never both."""

    kind: str


@event("command", "forwarded")
class CommandForwarded(Event, frozen=True, kw_only=True):
    """The hub passed a command on to a site, under its own id; from here on its outcome is the site's alone.

    ``type`` and ``data`` are those of the command to the site, ``target`` the aggregate's id in its subject.
    """

    site: str
    target: str
    type: str
    data: dict[str, Any]


# About instances: written by the site that they live on.


@event("instance", "deploying")
class InstanceDeploying(Event, frozen=True, kw_only=True):
    """An instance came to be, blank (``image`` is ``None``) or from an image.

    ``brokers`` maps every service and data service to the broker chosen for it, ``plans`` every data service to
    its plan, ``copies`` (of an image) every data service to the copy that it is restored from. ``template`` is as it
    was applied; what runs of it follows from ``environment``, ``environment_name``, ``without`` (all parts that are
    left out) and ``artifacts`` (asked for instead of the template's) by :func:`schemas.configuration.effective`.
    ``picked`` is the artifact that was chosen for each app service which has alternatives. ``attached`` are the data
    services that were there before; of an ``adopted`` instance no app service is ours.
    """

    name: str
    template: Template
    by: Requester
    environment: dict[str, dict[str, Value]] = {}
    image: str | None = None
    brokers: dict[str, str] = {}
    plans: dict[str, str] = {}
    copies: dict[str, str] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}
    picked: dict[str, Artifact] = {}
    attached: dict[str, Attachment] = {}
    adopted: bool = False


@event("instance", "running")
class InstanceRunning(Event, frozen=True, kw_only=True):
    """Every app service is healthy. ``url`` is where the entry point answers."""

    url: str | None = None


@event("instance", "degraded")
class InstanceDegraded(Event, frozen=True, kw_only=True):
    """A required part is not healthy."""

    message: str


@event("instance", "stopping")
class InstanceStopping(Event, frozen=True, kw_only=True):
    """The app services are being stopped."""


@event("instance", "stopped")
class InstanceStopped(Event, frozen=True, kw_only=True):
    """The app services are stopped, data is kept."""


@event("instance", "starting")
class InstanceStarting(Event, frozen=True, kw_only=True):
    """The app services are being started again."""


@event("instance", "deleting")
class InstanceDeleting(Event, frozen=True, kw_only=True):
    """The instance and its data are being removed."""


@event("instance", "deleted")
class InstanceDeleted(Event, frozen=True, kw_only=True):
    """The instance and its data are gone."""


@event("instance", "failed")
class InstanceFailed(Event, frozen=True, kw_only=True):
    """The instance can't be used. ``cleaned`` when nothing of it is left at the site."""

    problem: Problem
    cleaned: bool = False


@event("instance", "data_service_provisioned")
class DataServiceProvisioned(Event, frozen=True, kw_only=True):
    """A data service exists, blank or restored (``copy``). ``resource`` says where and what, without secrets."""

    data_service: str
    spec: DataServiceSpec
    broker: str
    plan: str
    resource: dict[str, str] = {}
    copy: str | None = None
    origin: Origin = "provisioned"


@event("instance", "data_service_bound")
class DataServiceBound(Event, frozen=True, kw_only=True):
    """A binding was made; the secrets behind its references stay at the site."""

    data_service: str
    binding: Binding


@event("instance", "data_service_unbound")
class DataServiceUnbound(Event, frozen=True, kw_only=True):
    """The binding is gone, and its credentials with it."""

    data_service: str


@event("instance", "data_service_removed")
class DataServiceRemoved(Event, frozen=True, kw_only=True):
    """The data service and its data are gone."""

    data_service: str


@event("instance", "data_service_detached")
class DataServiceDetached(Event, frozen=True, kw_only=True):
    """A data service that was there before is no longer part of the app. Nothing of it was changed."""

    data_service: str


@event("instance", "data_service_health_changed")
class DataServiceHealthChanged(Event, frozen=True, kw_only=True):
    """The broker's check of a data service changed its mind."""

    data_service: str
    healthy: bool
    message: str = ""


@event("instance", "service_deployed")
class ServiceDeployed(Event, frozen=True, kw_only=True):
    """An app service runs and is healthy."""

    service: str
    broker: str
    url: str | None = None
    host: str | None = None
    port: int | None = None
    artifact_digest: str | None = None


@event("instance", "service_stopped")
class ServiceStopped(Event, frozen=True, kw_only=True):
    """An app service was stopped."""

    service: str


@event("instance", "service_removed")
class ServiceRemoved(Event, frozen=True, kw_only=True):
    """An app service is gone from its platform."""

    service: str


@event("instance", "service_health_changed")
class ServiceHealthChanged(Event, frozen=True, kw_only=True):
    """The platform's probe of an app service changed its mind."""

    service: str
    healthy: bool
    message: str = ""


# --- copy (the site where it was made) and location (the site of the repository)


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
    it there itself but came upon it."""

    copy: str
    repository: str
    image: str
    stored: int = 0
    found: bool = False


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


# --- image (content: the source site)


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


# --- secret (the site): its aggregate's id is its name


@event("secret", "set")
class SecretSet(Event, frozen=True, kw_only=True):
    """Somebody gave the site a secret; ``version`` counts how often one of this name was set."""

    version: int
    by: Requester


@event("secret", "removed")
class SecretRemoved(Event, frozen=True, kw_only=True):
    """Somebody took a secret away from the site."""

    by: Requester


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


# --- broker and site (the site)


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
    of them by the repository's name.
    """

    version: str
    seal_key: str
    crb_fingerprint: str = ""
    crb_fingerprints: dict[str, str] = {}
    accepts: tuple[str, ...] = ("public", "internal", "personal", "restricted")


# --- the hub's


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
