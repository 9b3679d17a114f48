"""What the hub may ask this site (``calque.rpc.<site>.<operation>``): logs, sealed bindings, sealed grants,
and to keep or forget a secret that somebody sealed to this site."""

from __future__ import annotations

import msgspec

from bus.connection import Bus
from bus.service import Service
from schemas import brokers as wire
from schemas import queries
from schemas.commands import SiteCommand
from schemas.envelope import Envelope
from schemas.planning import SitePlanQuery, SitePlanView
from schemas.problems import CalqueError, conflict, invalid, not_found
from schemas.registry import MESSAGES
from schemas.site_secrets import SecretChanged, SiteRemoveSecret, SiteSetSecret
from schemas.subjects import site_rpc
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.journal import Journal
from site_agent.adapters.sealing import seal
from site_agent.adapters.secret_store import SecretStore
from site_agent.application.grants import Grants
from site_agent.application.site_secrets import SiteSecrets
from site_agent.domain import planning
from site_agent.domain.instance import Instance


class Answers:
    """The service that answers the hub."""

    def __init__(
        self, journal: Journal, *, brokers: Brokers, secrets: SecretStore, grants: Grants, site_secrets: SiteSecrets
    ) -> None:
        self._journal = journal
        self._brokers = brokers
        self._secrets = secrets
        self._grants = grants
        self._site_secrets = site_secrets

    def service(self, bus: Bus, *, version: str) -> Service:
        """The service, ready to be started."""
        site = self._journal.site.name
        service = Service(
            bus,
            name="calque-agent",
            version=version,
            description=f"The agent of site {site}",
            source=site,
            metadata={"calque.kind": "agent", "calque.site": site},
        )
        service.endpoint("logs", site_rpc(site=site, operation="logs"), queries.SiteLogs, queries.LogsView, self._logs)
        service.endpoint(
            "binding", site_rpc(site=site, operation="binding"), queries.SiteBinding, queries.BindingView, self._binding
        )
        service.endpoint(
            "grant", site_rpc(site=site, operation="grant"), queries.SiteGrant, queries.GrantView, self._grant
        )
        service.endpoint(
            "secret-set",
            site_rpc(site=site, operation="secret_set"),
            SiteSetSecret,
            SecretChanged,
            self._set_secret,
        )
        service.endpoint(
            "secret-remove",
            site_rpc(site=site, operation="secret_remove"),
            SiteRemoveSecret,
            SecretChanged,
            self._remove_secret,
        )
        service.endpoint("plan", site_rpc(site=site, operation="plan"), SitePlanQuery, SitePlanView, self._plan)
        return service

    async def _set_secret(self, request: SiteSetSecret, _: Envelope) -> SecretChanged:
        return await self._site_secrets.set(request)

    async def _remove_secret(self, request: SiteRemoveSecret, _: Envelope) -> SecretChanged:
        return await self._site_secrets.remove(request)

    async def _plan(self, request: SitePlanQuery, _: Envelope) -> SitePlanView:
        kind = MESSAGES.get(request.type)
        if kind is None or not issubclass(kind, SiteCommand):
            raise CalqueError(invalid("type", f"{request.type!r} is no command to a site"))
        try:
            command = msgspec.convert(request.data, kind)
        except msgspec.ValidationError as error:
            raise CalqueError(invalid("data", str(error))) from None
        found = planning.plan(self._journal.site, command, target=request.target, arriving=request.arriving)
        return SitePlanView(lacks=tuple(found)) if isinstance(found, list) else SitePlanView(plan=found)

    async def _logs(self, request: queries.SiteLogs, _: Envelope) -> queries.LogsView:
        instance = self._instance(request.instance)
        service = instance.services.get(request.service)
        if service is None:
            known = ", ".join(instance.services)
            raise CalqueError(
                not_found("service", f"app {instance.name!r} has no service {request.service!r}", f"it has: {known}")
            )
        wanted = wire.LogsRequest(instance=instance.id, service=request.service, lines=request.lines)
        said = await self._brokers.once("psb", service.broker, "logs", wanted, wire.LogLines)
        return queries.LogsView(
            site=self._journal.site.name, instance=instance.id, service=request.service, lines=said.lines
        )

    async def _binding(self, request: queries.SiteBinding, _: Envelope) -> queries.BindingView:
        instance = self._instance(request.instance)
        service = instance.data_services.get(request.data_service)
        if service is None:
            known = ", ".join(instance.data_services) or "none"
            raise CalqueError(
                not_found(
                    "data_service",
                    f"app {instance.name!r} has no data service {request.data_service!r}",
                    f"it has: {known}",
                )
            )
        if service.binding is None:
            raise CalqueError(
                conflict("data_service", f"{request.data_service!r} is not bound (it is {service.state})")
            )
        secrets = {name: self._secrets.get(where).value for name, where in service.binding.secret_refs.items()}
        return queries.BindingView(
            attributes=service.binding.attributes,
            secrets=seal(msgspec.json.encode(secrets), public_key=request.public_key),
        )

    async def _grant(self, request: queries.SiteGrant, _: Envelope) -> queries.GrantView:
        return await self._grants.for_site(request)

    def _instance(self, id: str) -> Instance:
        instance = self._journal.site.instances.get(id)
        if instance is None or instance.state == "deleted":
            raise CalqueError(not_found("app", f"site {self._journal.site.name} has no app {id!r}"))
        return instance
