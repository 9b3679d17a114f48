"""Answers queries from the projections, and relays what only a site can answer."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from hub.application.aggregates import load
from hub.application.context import Context
from hub.application.members import Members
from hub.application.paging import MOST_ON_A_PAGE, check_limit, fits, key_of, page_of, place
from hub.application.planning import Planner
from hub.application.ports import Conditions
from hub.domain.children import operation_of
from hub.domain.grants import check_grant
from hub.projections import status, views
from hub.projections.apps import AppRow
from hub.projections.operations import OperationRow
from hub.projections.repositories import repository_views
from schemas import saga
from schemas.brokers import SERVICE_VERSION
from schemas.commands import Answer
from schemas.conditions import ConditionQuery, ConditionView
from schemas.envelope import Envelope
from schemas.masking_preview import MaskPreviewQuery, MaskPreviewView, SiteMaskPreview
from schemas.planning import PlanQuery, PlanView
from schemas.problems import CalqueError, conflict, invalid, not_found, temporary
from schemas.queries import (
    AppsQuery,
    AppsView,
    AskGrant,
    BindingQuery,
    BindingView,
    BrokersQuery,
    BrokersView,
    CommandQuery,
    GrantView,
    ImagesQuery,
    ImagesView,
    LogsQuery,
    LogsView,
    OperationsQuery,
    OperationsView,
    SiteBinding,
    SiteGrant,
    SiteLogs,
    SitesQuery,
    SitesView,
    SiteView,
    StatusQuery,
    StatusView,
    StoppedView,
    TemplatesQuery,
    TemplatesView,
)
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
from schemas.site_secrets import SecretsQuery, SecretsView
from schemas.webhooks import WebhooksQuery, WebhooksView

MOST_LINES = 10_000
STOPPED_SHOWN = 100


def _age_of_operation(row: OperationRow) -> tuple[str, ...]:
    return (row.created_at, row.id, row.writer)


def _order_of_app(row: AppRow) -> tuple[str, ...]:
    """Apps are listed by site and name."""
    return (row.site, row.deploying.name if row.deploying else "", row.created_at, row.id)


class Queries:
    """One method per query. Each raises :class:`CalqueError` with the problem that the caller gets."""

    def __init__(self, context: Context, members: Members, *, name: str, conditions: Conditions | None = None) -> None:
        self._context = context
        self._members = members
        self._name = name
        self._conditions = conditions
        self._planner = Planner(context)

    async def status(self, _query: StatusQuery, _envelope: Envelope) -> StatusView:
        """``status``"""
        state = self._context.state
        operations: Counter[str] = Counter(row.state for row in state.operations.rows.values())
        return StatusView(
            version=SERVICE_VERSION,
            hub=self._name,
            sites=await self._sites(),
            apps=dict(Counter(status.of_app(row) for row in state.apps.known() if not row.gone)),
            operations=dict(operations),
            images=state.image_index.count("state", "saved"),
            events=state.events,
            unassigned=tuple(state.apps.unassigned()),
            stopped=tuple(
                StoppedView(writer=writer, aggregate=aggregate, id=id, type=type)
                for (writer, aggregate, id), type in islice(sorted(state.stopped.items()), STOPPED_SHOWN)
            ),
        )

    async def templates(self, query: TemplatesQuery, _envelope: Envelope) -> TemplatesView:
        """``templates``, newest last."""
        rows = self._context.state.templates.rows.values()
        found = [views.template_view(row) for row in rows if query.name in (None, row.applied.template.name)]
        return TemplatesView(templates=tuple(found))

    async def apps(self, query: AppsQuery, _envelope: Envelope) -> AppsView:
        """``apps``"""
        self._check_site(query.site)
        state = self._context.state
        found = [
            row
            for row in state.apps.known()
            if row.deploying is not None
            and (query.all or not row.gone)
            and query.site in (None, row.site)
            and query.name in (None, row.id, row.deploying.name)
        ]
        found.sort(key=_order_of_app)
        page = page_of([_order_of_app(row) for row in found], limit=query.limit, after=query.after)
        shown = views.app_views(state, found[page.first : page.last], configuration=query.configuration)
        fitting = fits(shown)
        last = page.first + fitting
        return AppsView(
            apps=shown[:fitting],
            next=place(_order_of_app(found[last - 1])) if last < page.total else None,
            total=page.total,
        )

    async def images(self, query: ImagesQuery, _envelope: Envelope) -> ImagesView:
        """``images``"""
        state = self._context.state
        check_limit(query.limit)
        page = state.image_index.find(query)
        found = views.image_views(state, page.ids)
        fitting = fits(found)
        next = page.next if fitting == len(found) else state.image_index.place_after(query, page.ids[fitting - 1])
        return ImagesView(images=found[:fitting], next=next, total=page.total)

    async def operations(self, query: OperationsQuery, _envelope: Envelope) -> OperationsView:
        """``operations``, newest first"""
        if query.limit < 1:
            raise CalqueError(invalid("limit", f"{query.limit} is not a number of operations", "use 1 or more"))
        operations = self._context.state.operations
        rows = operations.rows.values() if query.id is None else operations.find(query.id)
        found = [
            row for row in rows if query.state in (None, row.state) and query.target in (None, row.target, row.name)
        ]
        if query.after is not None:
            newest = key_of(query.after)
            found = [row for row in found if _age_of_operation(row) < newest]
        found.sort(key=_age_of_operation, reverse=True)
        shown = tuple(
            views.operation_view(self._context.state, row) for row in found[: min(query.limit, MOST_ON_A_PAGE)]
        )
        fitting = fits(shown)
        next = place(_age_of_operation(found[fitting - 1])) if fitting < len(found) else None
        return OperationsView(operations=shown[:fitting], next=next)

    async def sites(self, _query: SitesQuery, _envelope: Envelope) -> SitesView:
        """``sites``"""
        return SitesView(sites=await self._sites())

    async def brokers(self, query: BrokersQuery, _envelope: Envelope) -> BrokersView:
        """``brokers``"""
        self._check_site(query.site)
        return BrokersView(brokers=views.broker_views(self._context.state, site=query.site))

    async def command(self, query: CommandQuery, _envelope: Envelope) -> Answer:
        """``command``"""
        answer = views.answer_of(self._context.state, query.id)
        if answer is None:
            raise CalqueError(
                not_found(
                    "id", f"nothing is known of a command {query.id}", "it may still wait; ask again, or send it again"
                )
            )
        return answer

    async def logs(self, query: LogsQuery, _envelope: Envelope) -> LogsView:
        """``logs``, from the app's site"""
        if not 1 <= query.lines <= MOST_LINES:
            raise CalqueError(invalid("lines", f"{query.lines} is out of range", f"use 1 to {MOST_LINES}"))
        row = self._app(query.app)
        assert row.deploying is not None
        service = query.service or row.deploying.template.entrypoint
        names = ", ".join(sorted(row.services))
        if service is None:
            raise CalqueError(invalid("service", f"app {query.app} has no entry point", f"name one of: {names}"))
        if service not in row.services:
            raise CalqueError(
                not_found("service", f"app {query.app} has no service {service!r}", f"use one of: {names}")
            )
        question = SiteLogs(instance=row.id, service=service, lines=query.lines)
        return await self._context.outbound.ask_site(row.site, "logs", question, LogsView)

    async def binding(self, query: BindingQuery, _envelope: Envelope) -> BindingView:
        """``binding``, from the app's site; the hub can't open what the site seals"""
        row = self._app(query.app)
        if query.data_service not in row.data_services:
            names = ", ".join(sorted(row.data_services))
            raise CalqueError(
                not_found(
                    "data_service",
                    f"app {query.app} has no data service {query.data_service!r}",
                    f"use one of: {names}" if names else None,
                )
            )
        question = SiteBinding(instance=row.id, data_service=query.data_service, public_key=query.public_key)
        return await self._context.outbound.ask_site(row.site, "binding", question, BindingView)

    async def mask_preview(self, query: MaskPreviewQuery, _envelope: Envelope) -> MaskPreviewView:
        """``mask_preview``, from the app's site; the hub can't open what the site seals"""
        row = self._app(query.app)
        question = SiteMaskPreview(
            instance=row.id,
            data_service=query.data_service,
            rules=query.rules,
            public_key=query.public_key,
            rows=query.rows,
            before=query.before,
        )
        return await self._context.outbound.ask_site(row.site, "mask_preview", question, MaskPreviewView)

    async def secrets(self, query: SecretsQuery, _envelope: Envelope) -> SecretsView:
        """``secrets``"""
        self._check_site(query.site)
        return SecretsView(secrets=self._context.state.secrets.views(site=query.site))

    async def webhooks(self, query: WebhooksQuery, _envelope: Envelope) -> WebhooksView:
        """``webhooks``"""
        return WebhooksView(webhooks=self._context.state.webhooks.views(query.name))

    async def condition(self, _query: ConditionQuery, _envelope: Envelope) -> ConditionView:
        """``condition``"""
        if self._conditions is None:
            return ConditionView(hub=self._name, position=self._context.state.position, behind=0)
        return await self._conditions.view(self._name)

    async def plan(self, query: PlanQuery, envelope: Envelope) -> PlanView:
        """``plan``"""
        return await self._planner.plan(query, envelope)

    async def repositories(self, query: RepositoriesQuery, _envelope: Envelope) -> RepositoriesView:
        """``repositories``"""
        self._check_site(query.site)
        return RepositoriesView(repositories=repository_views(self._context.state, site=query.site))

    async def repository(self, query: RepositoryQuery, _envelope: Envelope) -> RepositoryCondition:
        """``repository``, from its site"""
        self._check_site(query.site)
        question = SiteRepositoryQuery(name=query.name)
        return await self._context.outbound.ask_site(query.site, "repository", question, RepositoryCondition)

    async def scan(self, query: ScanQuery, _envelope: Envelope) -> ScanView:
        """``scan``, from the site"""
        self._check_site(query.site)
        return await self._context.outbound.ask_site(query.site, "scan", SiteScan(name=query.name), ScanView)

    async def signers(self, _asking: str, question: AskSigners) -> SignersView:
        """A site asks whose keys these are."""
        known = self._context.state.sites.signers
        return SignersView(known={key: known[key] for key in question.keys if key in known})

    async def grant(self, asking: str, question: AskGrant) -> GrantView:
        """A site asks for a copy of another one. The grant comes sealed to the asking site."""
        operation = operation_of(question.operation) or question.operation
        loaded = await load(self._context.events, "operation", operation)
        if problem := check_grant(question, saga.fold(operation, loaded.events), asking=asking):
            raise CalqueError(problem)
        announced = self._context.state.sites.announced.get(asking)
        fingerprint = announced.crb_fingerprints.get(question.repository) if announced else None
        fingerprint = fingerprint or (announced.crb_fingerprint if announced else "")
        if announced is None or not fingerprint:
            raise CalqueError(
                temporary("not_announced", f"the hub does not know the keys of site {asking} yet", field="site")
            )
        wanted = SiteGrant(
            copy=question.copy,
            target=asking,
            public_key=announced.seal_key,
            client_fingerprint=fingerprint,
        )
        return await self._context.outbound.ask_site(question.source, "grant", wanted, GrantView)

    def _app(self, name: str) -> AppRow:
        found = [row for row in self._context.state.apps.find(name) if not row.gone]
        if not found:
            raise CalqueError(not_found("app", f"there is no app {name!r}", "see `calque app list`"))
        if len(found) > 1:
            places = ", ".join(f"{row.id} at {row.site}" for row in found)
            raise CalqueError(conflict("app", f"several apps are called {name!r}", f"use the id of one: {places}"))
        return found[0]

    def _check_site(self, site: str | None) -> None:
        """Raises ``not_found`` for a site that a question names and nobody knows."""
        if site is not None and site not in (known := self._context.site_states()):
            raise CalqueError(
                not_found("site", f"there is no site {site!r}", f"use one of: {', '.join(sorted(known))}")
            )

    async def _sites(self) -> tuple[SiteView, ...]:
        state = self._context.state
        apps = Counter(row.site for row in state.apps.known() if not row.gone)
        brokers: dict[str, list[str]] = {}
        for broker in views.broker_views(state):
            if broker.state == "registered":
                brokers.setdefault(broker.site, []).append(f"{broker.kind}-{broker.name}")
        lags = await self._conditions.lags() if self._conditions is not None else {}
        return tuple(
            SiteView(
                name=site,
                state=condition,
                version=state.sites.announced[site].version if site in state.sites.announced else "",
                last_beat=self._members.last_beats.get(site, ""),
                apps=apps[site],
                images=state.image_index.count("site", site),
                brokers=tuple(brokers.get(site, ())),
                lag=lags.get(site) if condition == "online" else None,
                condition=self._members.conditions.get(site),
                seal_key=state.sites.announced[site].seal_key if site in state.sites.announced else "",
                images_accepted=state.sites.announced[site].images if site in state.sites.announced else "any",
            )
            for site, condition in sorted(self._context.site_states().items())
        )
