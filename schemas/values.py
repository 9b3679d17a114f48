"""Value types: what templates, instances, copies, images and plans are made of."""

from __future__ import annotations

from typing import Literal

from schemas.base import Fact

ServiceType = Literal["public", "private", "worker"]
DataServiceType = Literal["database", "objectstore", "volume", "messaging", "cache", "search", "mail", "other"]
BrokerKind = Literal["dsb", "psb", "crb", "arb"]
DataClass = Literal["public", "internal", "personal", "restricted"]
Level = Literal["application", "paused", "crash"]

InstanceState = Literal[
    "pending",
    "deploying",
    "running",
    "degraded",
    "stopping",
    "stopped",
    "starting",
    "deleting",
    "deleted",
    "failed",
]
ServiceState = Literal["pending", "deploying", "running", "stopping", "stopped", "failed", "removed"]
DataServiceState = Literal[
    "pending",
    "provisioning",
    "restoring",
    "provisioned",
    "binding",
    "bound",
    "unbinding",
    "removing",
    "removed",
    "failed",
]
CopyState = Literal["preparing", "prepared", "copying", "committed", "expired", "failed"]
ImageState = Literal["saving", "saved", "failed", "deleted"]
OperationState = Literal["accepted", "running", "succeeded", "failed", "cancelled"]
SiteState = Literal["joining", "online", "stale", "offline", "retired"]
Cleanup = Literal["none", "done", "pending", "stuck"]
Status = Literal["UP", "DOWN", "PENDING", "ERROR"]


class Artifact(Fact, frozen=True, kw_only=True):
    """What an app service runs.

    ``type: process`` - ``directory`` (absolute once applied) or ``wheel``, and ``command``; ``digest`` is the
    SHA-256 over the sorted tree (relative path, mode, content), set when the template is applied.
    """

    type: Literal["process", "image"] = "process"
    directory: str | None = None
    wheel: str | None = None
    command: tuple[str, ...] = ()
    image: str | None = None
    digest: str | None = None


class HealthCheck(Fact, frozen=True, kw_only=True):
    """An HTTP probe (``path``) or, without a path, whether the process listens. Durations in seconds."""

    path: str | None = None
    interval_seconds: float = 2.0
    timeout_seconds: float = 5.0
    start_period_seconds: float = 60.0


class Hook(Fact, frozen=True, kw_only=True):
    """A call into the app service: ``http`` is ``METHOD /path`` on its own port."""

    http: str
    timeout_seconds: float = 10.0


class Hooks(Fact, frozen=True, kw_only=True):
    """The hooks around a copy; a service without ``quiesce`` is paused instead."""

    quiesce: Hook | None = None
    thaw: Hook | None = None


class Channel(Fact, frozen=True, kw_only=True):
    """What an app service may say and hear on a messaging data service, as NATS subjects of the app's own.

    Subjects are the instance's: the same ones in two copies of an app never meet. ``*`` stands for one token, ``>``
    for all that follow. Replies to what it received, and to its own requests, need no declaration.
    """

    sends: tuple[str, ...] = ()
    receives: tuple[str, ...] = ()


class ServiceSpec(Fact, frozen=True, kw_only=True):
    """An app service as the template describes it. ``environment`` may hold ``${service.attribute}``.

    ``channels`` is what it may say and hear, by messaging data service: its credentials there hold for no more.
    """

    artifact: Artifact
    type: ServiceType = "private"
    port: int | None = None
    environment: dict[str, str] = {}
    health: HealthCheck | None = None
    hooks: Hooks = Hooks()
    depends_on: tuple[str, ...] = ()
    channels: dict[str, Channel] = {}
    stop_grace_seconds: float = 5.0
    restart: Literal["always", "on-failure", "never"] = "always"


class DataServiceSpec(Fact, frozen=True, kw_only=True):
    """A data service as the template describes it; ``broker`` may be left to the site."""

    type: DataServiceType
    broker: str | None = None
    plan: str | None = None
    parameters: dict[str, str] = {}
    data_class: DataClass = "restricted"


class Template(Fact, frozen=True, kw_only=True):
    """The topology of an application; immutable per (team, name, version)."""

    name: str
    version: str
    services: dict[str, ServiceSpec] = {}
    data_services: dict[str, DataServiceSpec] = {}
    entrypoint: str | None = None
    description: str = ""


class TemplateRef(Fact, frozen=True, kw_only=True):
    """A template by name and version; without a version, the newest applied."""

    name: str
    version: str | None = None


class Plan(Fact, frozen=True, kw_only=True):
    """What a DSB offers. ``monthly_cost`` is in ``currency``; ``None`` when unknown."""

    name: str
    description: str = ""
    monthly_cost: float | None = None
    currency: str = "EUR"
    limits: dict[str, str] = {}


class Binding(Fact, frozen=True, kw_only=True):
    """What an app service needs to reach a data service.

    ``attributes`` are plain (host, port, database, user, bucket, ...). ``secret_refs`` maps the names of the
    secret attributes (password, uri, secret_key, ...) to references into the site's own encrypted store.
    """

    id: str
    data_service: str
    attributes: dict[str, str] = {}
    secret_refs: dict[str, str] = {}


class CopyPart(Fact, frozen=True, kw_only=True):
    """One part of a copy: a byte stream, or an ordered list of entries. Sizes in bytes, digest BLAKE3 hex."""

    name: str
    media_type: str
    size: int
    digest: str
    entries: int = 0


class CopySummary(Fact, frozen=True, kw_only=True):
    """A committed copy. Sizes in bytes; ``merkle_root`` covers the plaintext, hexadecimal."""

    copy: str
    merkle_root: str
    manifest_digest: str
    size: int
    stored: int
    parts: tuple[CopyPart, ...] = ()


class ImagePart(Fact, frozen=True, kw_only=True):
    """One data service of an image and the copy that holds its state."""

    data_service: str
    type: DataServiceType
    broker: str
    plan: str
    copy: str
    copy_format: str
    level: Level
    engine: str = ""
    engine_version: str = ""
    merkle_root: str = ""
    size: int = 0
    stored: int = 0
    data_class: DataClass = "restricted"


class InstanceConfiguration(Fact, frozen=True, kw_only=True):
    """The configuration captured with an image: template and the instance's own environment."""

    template: Template
    environment: dict[str, dict[str, str]] = {}


class ImageInstance(Fact, frozen=True, kw_only=True):
    """One instance's share of an image: an image is a list of these from the first day."""

    instance: str
    instance_name: str
    configuration: InstanceConfiguration
    parts: tuple[ImagePart, ...] = ()


class ImageContent(Fact, frozen=True, kw_only=True):
    """What an image holds, as its source site wrote it: no tags, no name, no sharing.

    ``writers_wait_seconds`` is the time from the first quiesce sent to the last thaw confirmed.
    """

    image: str
    site: str
    level: Level
    instances: tuple[ImageInstance, ...]
    writers_wait_seconds: float = 0.0
    parent: str | None = None
    saved_at: str = ""


class Requester(Fact, frozen=True, kw_only=True):
    """Who asked for an operation: the principal that its credential pins, and the team."""

    principal: str
    team: str = "default"
