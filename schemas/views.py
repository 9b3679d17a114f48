"""What queries show: apps, images, operations, sites, brokers, templates."""

from __future__ import annotations

from typing import Any, Literal

from schemas.base import Fact
from schemas.masking import Masked
from schemas.operations import Step
from schemas.problems import Problem
from schemas.questions import Query as Query
from schemas.questions import QueryContract as QueryContract
from schemas.questions import View as View
from schemas.signals import SiteCondition
from schemas.values import (
    AcceptedImages,
    BrokerKind,
    Cleanup,
    CopyState,
    DataServiceState,
    DataServiceType,
    ImageState,
    InstanceState,
    Level,
    OperationState,
    Origin,
    Plan,
    ServiceState,
    ServiceType,
    SiteState,
    Status,
)


class ServiceView(Fact, frozen=True, kw_only=True):
    """An app service of an instance."""

    name: str
    type: ServiceType
    state: ServiceState
    status: Status
    healthy: bool = False
    url: str | None = None
    broker: str | None = None
    message: str = ""


class DataServiceView(Fact, frozen=True, kw_only=True):
    """A data service of an instance with its binding's plain attributes (no secrets).

    ``origin`` is ``attached`` for one that was there before and is never ours to remove; ``healthy`` is what the
    broker's check of such a one said last. ``method`` is how its ``copy`` was restored, where the broker said so.
    """

    name: str
    type: DataServiceType
    state: DataServiceState
    broker: str | None = None
    plan: str | None = None
    resource: dict[str, str] = {}
    binding: dict[str, str] = {}
    secret_refs: dict[str, str] = {}
    copy: str | None = None
    origin: Origin = "provisioned"
    healthy: bool | None = None
    message: str = ""
    method: str = ""


class ConfiguredView(Fact, frozen=True, kw_only=True):
    """The value of one variable of an app service, as it was written: references are not resolved, and of a secret
    there is its name alone. ``layer`` is where it comes from (``app``, ``service``, ``environment``, ``instance``),
    ``field`` the place in the template, or ``environment.<service>.<variable>`` of the deployment."""

    service: str
    variable: str
    layer: str
    field: str
    value: str = ""
    secret: str | None = None


class AppView(Fact, frozen=True, kw_only=True):
    """An app instance. ``stale`` when its site has stopped reporting; ``adopted`` when its app services run somewhere
    else and only its data services are known. ``environment`` is the template's
    environment that it is in, ``without`` the parts that are left out; ``configuration`` is told only when it was
    asked for.
    """

    id: str
    name: str
    site: str
    team: str
    template: str
    state: InstanceState
    status: Status
    stale: bool = False
    url: str | None = None
    image: str | None = None
    message: str = ""
    services: tuple[ServiceView, ...] = ()
    data_services: tuple[DataServiceView, ...] = ()
    operation: str | None = None
    environment: str | None = None
    without: tuple[str, ...] = ()
    configuration: tuple[ConfiguredView, ...] = ()
    created_at: str = ""
    changed_at: str = ""
    adopted: bool = False


class ImagePartView(Fact, frozen=True, kw_only=True):
    """One part of an image and its copy. ``masked`` says by what it was masked. ``origin``: ``attached`` when the copy
    is of a data service that was there before; what is made from it is provisioned all the same."""

    data_service: str
    copy: str
    state: CopyState
    type: DataServiceType | None = None
    level: Level | None = None
    size: int = 0
    stored: int = 0
    merkle_root: str = ""
    locations: tuple[str, ...] = ()
    origin: Origin = "provisioned"
    masked: Masked | None = None


class ImageView(Fact, frozen=True, kw_only=True):
    """An image in the catalog; sizes in bytes. A ``found`` one was come upon by ``site`` in the repository ``found_in``
    (``<site>/<name>``), signed by the key ``signer``. ``masked``: all that it holds was masked, or said to be harmless,
    when it was copied. Before ``keep_until`` (RFC 3339, UTC) it can't be deleted."""

    id: str
    name: str
    state: ImageState
    site: str
    origin: Literal["saved", "found"] = "saved"
    found_in: str = ""
    signer: str = ""
    instance: str
    instance_name: str
    template: str
    tags: tuple[str, ...] = ()
    comment: str = ""
    level: Level | None = None
    writers_wait_seconds: float | None = None
    parts: tuple[ImagePartView, ...] = ()
    parent: str | None = None
    size: int = 0
    stored: int = 0
    sites: tuple[str, ...] = ()
    created_at: str = ""
    environment: str | None = None
    without: tuple[str, ...] = ()
    message: str = ""
    masked: bool = False
    keep_until: str = ""


class StepView(Fact, frozen=True, kw_only=True):
    """A step of an operation."""

    step: Step
    state: str
    attempt: int = 0
    problem: Problem | None = None
    started_at: str = ""
    ended_at: str = ""


class OperationView(Fact, frozen=True, kw_only=True):
    """An operation. ``site`` is ``hub`` for the hub's own; ``children`` are the site operations that it started. If it
    has not succeeded ``deadline_seconds`` after ``created_at``, it goes back."""

    id: str
    kind: str
    site: str
    state: OperationState
    name: str
    target: str
    principal: str
    steps: tuple[StepView, ...] = ()
    problem: Problem | None = None
    cleanup: Cleanup = "none"
    undoing: bool = False
    parent: str | None = None
    children: tuple[str, ...] = ()
    result: dict[str, Any] = {}
    created_at: str = ""
    ended_at: str = ""
    deadline_seconds: float = 0.0


class BrokerView(Fact, frozen=True, kw_only=True):
    """A broker of a site."""

    site: str
    kind: BrokerKind
    name: str
    state: str
    version: str = ""
    types: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()
    engine: str = ""
    engine_version: str = ""
    can_attach: bool = False
    limits: tuple[str, ...] = ()


class HubView(Fact, frozen=True, kw_only=True):
    """A hub process. ``since`` is when it started; ``answering`` marks the one that answers."""

    name: str
    id: str
    version: str
    since: str = ""
    answering: bool = False


class SiteView(Fact, frozen=True, kw_only=True):
    """A site. ``lag`` is how many of its events the hub has not projected yet, ``None`` while it does not report;
    ``condition`` is what it said of itself last; ``seal_key`` the X25519 key (hex) to which secrets for this site are
    sealed, empty until it has announced itself; ``images_accepted`` which images come in there."""

    name: str
    state: SiteState
    version: str = ""
    last_beat: str = ""
    apps: int = 0
    images: int = 0
    brokers: tuple[str, ...] = ()
    lag: int | None = None
    condition: SiteCondition | None = None
    seal_key: str = ""
    images_accepted: AcceptedImages = "any"


class StoppedView(Fact, frozen=True, kw_only=True):
    """An aggregate that holds an event of a ``type`` which this version does not know: it is shown as it was before."""

    writer: str
    aggregate: str
    id: str
    type: str


class TemplateView(Fact, frozen=True, kw_only=True):
    """A template version; ``digest`` is the SHA-256 of its canonical content."""

    name: str
    version: str
    digest: str
    description: str = ""
    services: tuple[str, ...] = ()
    data_services: tuple[str, ...] = ()
    applied_by: str = ""
    applied_at: str = ""
