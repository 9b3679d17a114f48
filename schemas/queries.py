"""Queries to any hub (``calque.qry.<what>``), what clients change as themselves (``calque.act``), what the hub asks a
site (``calque.rpc``), what a site asks the hub (``calque.ask``), and their replies. None of this is stored."""

from __future__ import annotations

from typing import Any, Literal

from schemas.base import Fact
from schemas.commands import Answer
from schemas.operations import Step
from schemas.planning import PlanQuery, PlanView, SitePlanQuery, SitePlanView
from schemas.problems import Problem
from schemas.questions import Query as Query
from schemas.questions import QueryContract as QueryContract
from schemas.questions import View as View
from schemas.registry import message
from schemas.repositories import (
    AskSigners,
    RepositoriesQuery,
    RepositoriesView,
    RepositoryCondition,
    RepositoryQuery,
    ScanQuery,
    ScanView,
    SignersView,
    SiteRepositoryQuery,
    SiteScan,
)
from schemas.secrets import Sealed
from schemas.site_secrets import (
    RemoveSecret,
    SecretChanged,
    SecretsQuery,
    SecretsView,
    SetSecret,
    SiteRemoveSecret,
    SiteSetSecret,
)
from schemas.subscriptions import (
    ListSubscriptions,
    ListSubscriptionsOf,
    Subscribe,
    SubscriptionsView,
    SubscriptionView,
    Unsubscribe,
    Unsubscribed,
    UnsubscribeFor,
)
from schemas.values import (
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
from schemas.webhooks import (
    DiscardDeadLetters,
    DiscardedView,
    RetriedView,
    RetryDeadLetters,
    RevealWebhookSecret,
    SendTestEvent,
    WebhookDeadQuery,
    WebhookDeadView,
    WebhookDeliveriesQuery,
    WebhookDeliveriesView,
    WebhookSecretView,
    WebhooksQuery,
    WebhookStatusQuery,
    WebhookStatusView,
    WebhooksView,
    WebhookTestView,
)

# --- views


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
    broker's check of such a one said last.
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
    """One part of an image and its copy. ``origin``: ``attached`` when the copy is of a data service that was there
    before; what is made from it is provisioned all the same."""

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


class ImageView(Fact, frozen=True, kw_only=True):
    """An image in the catalog; sizes in bytes. A ``found`` one was come upon by ``site`` in the repository ``found_in``
    (``<site>/<name>``), signed by the key ``signer``."""

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


class StepView(Fact, frozen=True, kw_only=True):
    """A step of an operation."""

    step: Step
    state: str
    attempt: int = 0
    problem: Problem | None = None
    started_at: str = ""
    ended_at: str = ""


class OperationView(Fact, frozen=True, kw_only=True):
    """An operation. ``site`` is ``hub`` for the hub's own; ``children`` are the site operations that it started."""

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


class SiteView(Fact, frozen=True, kw_only=True):
    """A site. ``lag`` is how many of its events the hub has not projected yet, ``None`` when unknown; ``seal_key`` the
    X25519 key (hex) to which secrets for this site are sealed, empty until it has announced itself."""

    name: str
    state: SiteState
    version: str = ""
    last_beat: str = ""
    apps: int = 0
    images: int = 0
    brokers: tuple[str, ...] = ()
    lag: int | None = None
    seal_key: str = ""


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


# --- queries


@message("query.status")
class StatusQuery(Query, frozen=True, kw_only=True):
    """How is it all?"""


@message("view.status")
class StatusView(View, frozen=True, kw_only=True):
    """``unassigned`` are services of no known app, as ``<site>/<instance>/<service>``."""

    version: str
    hub: str
    sites: tuple[SiteView, ...]
    apps: dict[str, int]
    operations: dict[str, int]
    images: int
    events: int
    unassigned: tuple[str, ...] = ()


@message("query.templates")
class TemplatesQuery(Query, frozen=True, kw_only=True):
    """All template versions, newest last."""

    name: str | None = None


@message("view.templates")
class TemplatesView(View, frozen=True, kw_only=True):
    """Templates."""

    templates: tuple[TemplateView, ...]


@message("query.apps")
class AppsQuery(Query, frozen=True, kw_only=True):
    """Apps; ``name`` also finds an id. Deleted ones only with ``all``."""

    name: str | None = None
    site: str | None = None
    all: bool = False
    configuration: bool = False


@message("view.apps")
class AppsView(View, frozen=True, kw_only=True):
    """Apps."""

    apps: tuple[AppView, ...]


@message("query.images")
class ImagesQuery(Query, frozen=True, kw_only=True):
    """Images; ``name`` also finds an id. Only ``saved`` ones without ``all``."""

    name: str | None = None
    all: bool = False


@message("view.images")
class ImagesView(View, frozen=True, kw_only=True):
    """Images."""

    images: tuple[ImageView, ...]


@message("query.operations")
class OperationsQuery(Query, frozen=True, kw_only=True):
    """Operations, newest first; one by ``id``."""

    id: str | None = None
    state: OperationState | None = None
    target: str | None = None
    limit: int = 100


@message("view.operations")
class OperationsView(View, frozen=True, kw_only=True):
    """Operations."""

    operations: tuple[OperationView, ...]


@message("query.sites")
class SitesQuery(Query, frozen=True, kw_only=True):
    """All sites."""


@message("view.sites")
class SitesView(View, frozen=True, kw_only=True):
    """Sites."""

    sites: tuple[SiteView, ...]


@message("query.brokers")
class BrokersQuery(Query, frozen=True, kw_only=True):
    """Brokers, of one site or of all."""

    site: str | None = None


@message("view.brokers")
class BrokersView(View, frozen=True, kw_only=True):
    """Brokers."""

    brokers: tuple[BrokerView, ...]


@message("query.command")
class CommandQuery(Query, frozen=True, kw_only=True):
    """The answer to a command, again."""

    id: str


@message("query.logs")
class LogsQuery(Query, frozen=True, kw_only=True):
    """The last lines of an app's service (its entry point without ``service``)."""

    app: str
    service: str | None = None
    lines: int = 100


@message("view.logs")
class LogsView(View, frozen=True, kw_only=True):
    """Lines of one app service; follow it on ``calque.log.<site>.<instance>.<service>``."""

    site: str
    instance: str
    service: str
    lines: tuple[str, ...]


@message("query.binding")
class BindingQuery(Query, frozen=True, kw_only=True):
    """The secrets of a binding, sealed to ``public_key`` (X25519, hex) of the caller."""

    app: str
    data_service: str
    public_key: str


@message("view.binding")
class BindingView(View, frozen=True, kw_only=True):
    """``attributes`` are plain; ``secrets`` is the sealed JSON object of secret attributes."""

    attributes: dict[str, str]
    secrets: Sealed


# --- hub -> site


@message("rpc.logs")
class SiteLogs(Query, frozen=True, kw_only=True):
    """The last lines of an app service."""

    instance: str
    service: str
    lines: int = 100


@message("rpc.binding")
class SiteBinding(Query, frozen=True, kw_only=True):
    """The secrets of a binding, sealed to ``public_key``."""

    instance: str
    data_service: str
    public_key: str


@message("rpc.grant")
class SiteGrant(Query, frozen=True, kw_only=True):
    """A read grant for a copy of this site's repository, sealed to ``public_key`` of the site ``target`` and bound
    to the certificate of its repository."""

    copy: str
    target: str
    public_key: str
    client_fingerprint: str


# --- site -> hub


@message("ask.grant")
class AskGrant(Query, frozen=True, kw_only=True):
    """A read grant for ``copy`` at ``source``, for the operation of the hub that lets the asking site have it.

    ``repository`` is the one of the asking site that will fetch: the grant is bound to its certificate.
    """

    copy: str
    source: str
    operation: str
    repository: str = ""


@message("view.grant")
class GrantView(View, frozen=True, kw_only=True):
    """The grant (a JSON ``CopyGrant``), sealed to the asking site."""

    grant: Sealed


QUERIES: dict[str, QueryContract] = {
    "status": QueryContract(StatusQuery, StatusView),
    "templates": QueryContract(TemplatesQuery, TemplatesView),
    "apps": QueryContract(AppsQuery, AppsView),
    "images": QueryContract(ImagesQuery, ImagesView),
    "operations": QueryContract(OperationsQuery, OperationsView),
    "sites": QueryContract(SitesQuery, SitesView),
    "brokers": QueryContract(BrokersQuery, BrokersView),
    "command": QueryContract(CommandQuery, Answer),
    "logs": QueryContract(LogsQuery, LogsView),
    "binding": QueryContract(BindingQuery, BindingView),
    "secrets": QueryContract(SecretsQuery, SecretsView),
    "plan": QueryContract(PlanQuery, PlanView),
    "repositories": QueryContract(RepositoriesQuery, RepositoriesView),
    "repository": QueryContract(RepositoryQuery, RepositoryCondition),
    "scan": QueryContract(ScanQuery, ScanView),
    "webhooks": QueryContract(WebhooksQuery, WebhooksView),
}

WEBHOOK_QUERIES: dict[str, QueryContract] = {
    "webhook_status": QueryContract(WebhookStatusQuery, WebhookStatusView),
    "webhook_deliveries": QueryContract(WebhookDeliveriesQuery, WebhookDeliveriesView),
    "webhook_dead": QueryContract(WebhookDeadQuery, WebhookDeadView),
}
"""What the process that delivers webhooks answers."""

WEBHOOK_ACTS: dict[str, QueryContract] = {
    "webhook_secret": QueryContract(RevealWebhookSecret, WebhookSecretView),
    "webhook_test": QueryContract(SendTestEvent, WebhookTestView),
    "webhook_retry": QueryContract(RetryDeadLetters, RetriedView),
    "webhook_discard": QueryContract(DiscardDeadLetters, DiscardedView),
}
"""What it does for a client."""

CLIENT_ACTS: dict[str, QueryContract] = {
    "secret_set": QueryContract(SetSecret, SecretChanged),
    "secret_remove": QueryContract(RemoveSecret, SecretChanged),
}

SUBSCRIPTION_ACTS: dict[str, QueryContract] = {
    "subscribe": QueryContract(Subscribe, SubscriptionView),
    "subscriptions": QueryContract(ListSubscriptions, SubscriptionsView),
    "unsubscribe": QueryContract(Unsubscribe, Unsubscribed),
    "subscriptions_of": QueryContract(ListSubscriptionsOf, SubscriptionsView),
    "unsubscribe_for": QueryContract(UnsubscribeFor, Unsubscribed),
}

SITE_RPC: dict[str, QueryContract] = {
    "logs": QueryContract(SiteLogs, LogsView),
    "binding": QueryContract(SiteBinding, BindingView),
    "grant": QueryContract(SiteGrant, GrantView),
    "secret_set": QueryContract(SiteSetSecret, SecretChanged),
    "secret_remove": QueryContract(SiteRemoveSecret, SecretChanged),
    "plan": QueryContract(SitePlanQuery, SitePlanView),
    "repository": QueryContract(SiteRepositoryQuery, RepositoryCondition),
    "scan": QueryContract(SiteScan, ScanView),
}

SITE_ASK: dict[str, QueryContract] = {
    "grant": QueryContract(AskGrant, GrantView),
    "signers": QueryContract(AskSigners, SignersView),
}
