"""Queries to any hub (``calque.qry.<what>``), what clients change as themselves (``calque.act``), what the hub asks a
site (``calque.rpc``), what a site asks the hub (``calque.ask``), and their replies. None of this is stored."""

from __future__ import annotations

from typing import Literal

from schemas.commands import Answer
from schemas.conditions import ConditionQuery, ConditionView
from schemas.letters import (
    DiscardLetters,
    LetterOutcomes,
    LetterQuery,
    LettersQuery,
    LettersView,
    RetryLetters,
    SiteDiscardLetters,
    SiteLetter,
    SiteLetters,
    SiteRetryLetters,
    WholeLetter,
)
from schemas.masking_preview import MaskPreviewQuery, MaskPreviewView, SiteMaskPreview
from schemas.planning import PlanQuery, PlanView, SitePlanQuery, SitePlanView
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
from schemas.room import RoomQuery, RoomView
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
from schemas.strays import StraysQuery, StraysView
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
from schemas.upkeep import UPKEEP_ACTS as UPKEEP_ACTS
from schemas.upkeep import UPKEEP_QUERIES
from schemas.values import (
    ImageState,
    OperationState,
)
from schemas.views import AppView as AppView
from schemas.views import BrokerView as BrokerView
from schemas.views import ConfiguredView as ConfiguredView
from schemas.views import DataServiceView as DataServiceView
from schemas.views import HubView as HubView
from schemas.views import ImagePartView as ImagePartView
from schemas.views import ImageView as ImageView
from schemas.views import OperationView as OperationView
from schemas.views import ServiceView as ServiceView
from schemas.views import SiteView as SiteView
from schemas.views import StepView as StepView
from schemas.views import StoppedView as StoppedView
from schemas.views import TemplateView as TemplateView
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

# --- queries


@message("query.hubs")
class HubsQuery(Query, frozen=True, kw_only=True):
    """Which hub processes share the work?"""


@message("view.hubs")
class HubsView(View, frozen=True, kw_only=True):
    hubs: tuple[HubView, ...]


@message("query.status")
class StatusQuery(Query, frozen=True, kw_only=True):
    """How is it all?"""


@message("view.status")
class StatusView(View, frozen=True, kw_only=True):
    """``unassigned`` are services of no known app, as ``<site>/<instance>/<service>``; ``stopped`` the first 100 of the
    aggregates that are shown as they were, since a newer version wrote to them."""

    version: str
    hub: str
    sites: tuple[SiteView, ...]
    apps: dict[str, int]
    operations: dict[str, int]
    images: int
    events: int
    unassigned: tuple[str, ...] = ()
    stopped: tuple[StoppedView, ...] = ()


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
    """Apps by site and name, page by page; ``name`` also finds an id. Deleted ones only with ``all``.

    A page has at most ``limit`` (1 to 1000); ``after`` is what ``next`` of the page before said.
    """

    name: str | None = None
    site: str | None = None
    all: bool = False
    configuration: bool = False
    limit: int = 1000
    after: str | None = None


@message("view.apps")
class AppsView(View, frozen=True, kw_only=True):
    """A page of apps. ``next`` is the place of the page that follows, if there is one; ``total`` counts all."""

    apps: tuple[AppView, ...]
    next: str | None = None
    total: int = 0


ImageOrder = Literal["created", "name", "size"]
"""By what images are listed; the same in any order are told apart by id."""


@message("query.images")
class ImagesQuery(Query, frozen=True, kw_only=True):
    """Images, page by page; ``name`` also finds an id. Only ``saved`` ones without ``all`` or a ``state``.

    ``site`` finds those that lie at a site with all their copies, ``template`` a name or ``name@version``, ``tags``
    those that have each of them, ``text`` a part of name, comment or tag in any case; ``since`` and ``before`` bound
    when they were created (RFC 3339, UTC). A page has at most ``limit`` (1 to 1000); ``after`` is what ``next`` of the
    page before said.
    """

    name: str | None = None
    all: bool = False
    state: ImageState | None = None
    site: str | None = None
    template: str | None = None
    tags: tuple[str, ...] = ()
    text: str | None = None
    since: str | None = None
    before: str | None = None
    sort: ImageOrder = "created"
    descending: bool = False
    limit: int = 1000
    after: str | None = None


@message("view.images")
class ImagesView(View, frozen=True, kw_only=True):
    """A page of images. ``next`` is the place of the page that follows, if there is one; ``total`` counts all, where
    that is cheap."""

    images: tuple[ImageView, ...]
    next: str | None = None
    total: int | None = None


@message("query.operations")
class OperationsQuery(Query, frozen=True, kw_only=True):
    """Operations, newest first; one by ``id``. A page has at most ``limit``, and no more than fits into a message;
    ``after`` is what ``next`` of the page before said."""

    id: str | None = None
    state: OperationState | None = None
    target: str | None = None
    limit: int = 100
    after: str | None = None


@message("view.operations")
class OperationsView(View, frozen=True, kw_only=True):
    """A page of operations. ``next`` is the place of the page that follows, if there is one."""

    operations: tuple[OperationView, ...]
    next: str | None = None


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
    "hubs": QueryContract(HubsQuery, HubsView),
    "templates": QueryContract(TemplatesQuery, TemplatesView),
    "apps": QueryContract(AppsQuery, AppsView),
    "images": QueryContract(ImagesQuery, ImagesView),
    "operations": QueryContract(OperationsQuery, OperationsView),
    "sites": QueryContract(SitesQuery, SitesView),
    "brokers": QueryContract(BrokersQuery, BrokersView),
    "command": QueryContract(CommandQuery, Answer),
    "logs": QueryContract(LogsQuery, LogsView),
    "binding": QueryContract(BindingQuery, BindingView),
    "mask_preview": QueryContract(MaskPreviewQuery, MaskPreviewView),
    "secrets": QueryContract(SecretsQuery, SecretsView),
    "plan": QueryContract(PlanQuery, PlanView),
    "repositories": QueryContract(RepositoriesQuery, RepositoriesView),
    "repository": QueryContract(RepositoryQuery, RepositoryCondition),
    "scan": QueryContract(ScanQuery, ScanView),
    "webhooks": QueryContract(WebhooksQuery, WebhooksView),
    "condition": QueryContract(ConditionQuery, ConditionView),
    "letters": QueryContract(LettersQuery, LettersView),
    "letter": QueryContract(LetterQuery, WholeLetter),
    "strays": QueryContract(StraysQuery, StraysView),
    **UPKEEP_QUERIES,
    "room": QueryContract(RoomQuery, RoomView),
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

LETTER_ACTS: dict[str, QueryContract] = {
    "letter_retry": QueryContract(RetryLetters, LetterOutcomes),
    "letter_discard": QueryContract(DiscardLetters, LetterOutcomes),
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
    "mask_preview": QueryContract(SiteMaskPreview, MaskPreviewView),
    "repository": QueryContract(SiteRepositoryQuery, RepositoryCondition),
    "scan": QueryContract(SiteScan, ScanView),
    "letters": QueryContract(SiteLetters, LettersView),
    "letter": QueryContract(SiteLetter, WholeLetter),
    "letter_retry": QueryContract(SiteRetryLetters, LetterOutcomes),
    "letter_discard": QueryContract(SiteDiscardLetters, LetterOutcomes),
}

SITE_ASK: dict[str, QueryContract] = {
    "grant": QueryContract(AskGrant, GrantView),
    "signers": QueryContract(AskSigners, SignersView),
}
