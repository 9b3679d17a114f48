"""Value types: what templates, instances, copies, images and plans are made of."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from schemas.base import Fact
from schemas.masking import Masked, Masking

ServiceType = Literal["public", "private", "worker"]
DataServiceType = Literal["database", "objectstore", "volume", "messaging", "cache", "search", "mail", "other"]
BrokerKind = Literal["dsb", "psb", "crb", "arb"]
DataClass = Literal["public", "internal", "personal", "restricted"]
Level = Literal["application", "paused", "crash"]
AcceptedImages = Literal["any", "masked"]
"""Which images a site lets in."""

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
Origin = Literal["provisioned", "attached"]
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
    "detached",
    "failed",
]
CopyState = Literal["preparing", "prepared", "copying", "committed", "expired", "failed"]
ImageState = Literal["saving", "saved", "failed", "deleted"]
OperationState = Literal["accepted", "running", "succeeded", "failed", "cancelled"]
SiteState = Literal["joining", "online", "stale", "offline", "retired"]
Cleanup = Literal["none", "done", "pending", "stuck"]
Status = Literal["UP", "DOWN", "PENDING", "ERROR"]


class SecretRef(Fact, frozen=True, kw_only=True):
    """A value that the site keeps: the name of one of the secrets that its users set. Never the secret itself."""

    name: str = msgspec.field(name="secretRef")


Value: TypeAlias = str | SecretRef
"""The value of a variable: plain text, in which ``${service.attribute}`` refers to a binding, or a secret's name."""


class Artifact(Fact, frozen=True, kw_only=True):
    """What an app service runs.

    ``type: process`` - ``directory`` (absolute once applied) or ``wheel``, and ``command``; ``digest`` is the
    SHA-256 over the sorted tree (relative path, mode, content), set when the template is applied.
    ``type: image`` - ``image`` (a container image's name), and ``command`` where the image's own is not meant.
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
    """A call into the app service: ``http`` is ``METHOD /path`` on its own port, or ``exec`` a command that runs in
    the service's environment and working directory, without a shell. One of the two is given."""

    http: str = ""
    exec: tuple[str, ...] = ()
    timeout_seconds: float = 10.0


class Hooks(Fact, frozen=True, kw_only=True):
    """The hooks of an app service around copies and restores. When each one runs is said in
    :mod:`schemas.hook_check`; a service without ``quiesce`` is paused instead."""

    quiesce: Hook | None = None
    thaw: Hook | None = None
    before_copy: Hook | None = None
    after_copy: Hook | None = None
    before_restore: Hook | None = None
    after_restore: Hook | None = None


class Channel(Fact, frozen=True, kw_only=True):
    """What an app service may say and hear on a messaging data service, as NATS subjects of the app's own.

    Subjects are the instance's: the same ones in two copies of an app never meet. ``*`` stands for one token, ``>``
    for all that follow. Replies to what it received, and to its own requests, need no declaration.
    """

    sends: tuple[str, ...] = ()
    receives: tuple[str, ...] = ()


class ServiceSpec(Fact, frozen=True, kw_only=True):
    """An app service as the template describes it.

    ``channels`` is what it may say and hear, by messaging data service: its credentials there hold for no more.
    ``alternatives`` are further artifacts, in the order of preference behind ``artifact``: a site runs the first one
    that a platform of its own can run. ``wants`` are optional services that it uses where they are: it starts after
    them, and variables that refer to one that is left out are not set. ``requires`` are version ranges by the
    platform's engine (``kubernetes: ">=1.28"``), of which that of the platform it runs on must hold.
    """

    artifact: Artifact
    type: ServiceType = "private"
    port: int | None = None
    environment: dict[str, Value] = {}
    health: HealthCheck | None = None
    hooks: Hooks = Hooks()
    depends_on: tuple[str, ...] = ()
    channels: dict[str, Channel] = {}
    stop_grace_seconds: float = 5.0
    restart: Literal["always", "on-failure", "never"] = "always"
    alternatives: tuple[Artifact, ...] = ()
    optional: bool = False
    wants: tuple[str, ...] = ()
    requires: dict[str, str] = {}


class DataServiceRequirement(Fact, frozen=True, kw_only=True):
    """What the technology behind a data service must be: its ``engine`` (``postgres``), and the range of its version
    (``>=15,<18``). Empty is any."""

    engine: str = ""
    version: str = ""


class DataServiceSpec(Fact, frozen=True, kw_only=True):
    """A data service as the template describes it; ``broker`` may be left to the site. ``masking`` are the rules for
    masked saves of it."""

    type: DataServiceType
    broker: str | None = None
    plan: str | None = None
    parameters: dict[str, str] = {}
    data_class: DataClass = "restricted"
    optional: bool = False
    requires: DataServiceRequirement | None = None
    masking: Masking | None = None


class ServiceEnvironment(Fact, frozen=True, kw_only=True):
    """What a named environment sets for one app service."""

    environment: dict[str, Value] = {}


class NamedEnvironment(Fact, frozen=True, kw_only=True):
    """One of the environments that a template knows (dev, staging, production): values for all app services, values
    for single ones, and optional services that are left out there."""

    environment: dict[str, Value] = {}
    services: dict[str, ServiceEnvironment] = {}
    without: tuple[str, ...] = ()


class AppRequirement(Fact, frozen=True, kw_only=True):
    """What a template asks of the site as a whole: the range of versions of Calque there."""

    calque: str = ""


class Template(Fact, frozen=True, kw_only=True):
    """The topology of an application; immutable per (team, name, version)."""

    name: str
    version: str
    services: dict[str, ServiceSpec] = {}
    data_services: dict[str, DataServiceSpec] = {}
    entrypoint: str | None = None
    description: str = ""
    environment: dict[str, Value] = {}
    environments: dict[str, NamedEnvironment] = {}
    requires: AppRequirement | None = None


class Attachment(Fact, frozen=True, kw_only=True):
    """A data service that was there before. ``url`` says where it is and as whom, with no password in it; ``secret``
    is ``secret:<name>`` of the site, or none is needed. See :mod:`schemas.attachment`."""

    url: str
    secret: str | None = None


class Choices(Fact, frozen=True, kw_only=True):
    """What whoever deploys a template or runs an image chooses.

    ``environment`` (service -> variable -> value) are the instance's own values, ``environment_name`` names one of
    the template's environments, ``plans`` is data service -> plan. ``without`` are optional services to leave out,
    ``including`` those to take in that the named environment or the image leaves out. ``artifacts`` (service ->
    artifact) run instead of the template's; where one has no ``command``, that of the template's artifact of the
    same type is used. ``attach`` (data service -> where it is) names those that were there before and are never ours
    to overwrite or remove. ``adopted``: the app services run somewhere else and are not ours to run; every data
    service has to be attached then.
    """

    environment: dict[str, dict[str, Value]] = {}
    plans: dict[str, str] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    including: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}
    attach: dict[str, Attachment] = {}
    adopted: bool = False


class TemplateRef(Fact, frozen=True, kw_only=True):
    """A template by name and version; without a version, the newest applied."""

    name: str
    version: str | None = None


class Plan(Fact, frozen=True, kw_only=True):
    """What a DSB offers. ``monthly_cost`` is in ``currency``; ``None`` when unknown. ``can_mask`` is false where copies
    of its data services can't be masked, even by a broker that masks others; ``copy_formats`` are those that no other
    plan restores."""

    name: str
    description: str = ""
    monthly_cost: float | None = None
    currency: str = "EUR"
    limits: dict[str, str] = {}
    can_mask: bool = True
    copy_formats: tuple[str, ...] = ()


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
    """A committed copy. Sizes in bytes; ``merkle_root`` covers the plaintext, hexadecimal. ``keep_until`` (RFC 3339,
    UTC): the repository that answers deletes it only after that; empty when it isn't locked there."""

    copy: str
    merkle_root: str
    manifest_digest: str
    size: int
    stored: int
    parts: tuple[CopyPart, ...] = ()
    keep_until: str = ""


class ImagePart(Fact, frozen=True, kw_only=True):
    """One data service of an image and the copy that holds its state; ``masked`` says by what it was masked."""

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
    origin: Origin = "provisioned"
    masked: Masked | None = None


class InstanceConfiguration(Fact, frozen=True, kw_only=True):
    """The configuration captured with an image: the template as it was applied, and what the instance chose.

    ``without`` are the parts that the instance did not have: the image holds nothing of them.
    """

    template: Template
    environment: dict[str, dict[str, Value]] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}


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

    @property
    def masked(self) -> bool:
        """Whether every part was masked, or said to be harmless as a whole, when it was copied."""
        return all(part.masked is not None for one in self.instances for part in one.parts)


class Requester(Fact, frozen=True, kw_only=True):
    """Who asked for an operation: the principal that its credential pins, and the team."""

    principal: str
    team: str = "default"
