"""Watches the data services that were there before: nobody else tells this site how they are."""

from __future__ import annotations

import asyncio
import logging

from schemas import brokers as wire
from schemas import events as ev
from schemas.problems import CalqueError
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.journal import Journal
from site_agent.application.existing import existing_of
from site_agent.application.site_secrets import SiteSecrets
from site_agent.application.surroundings import Doubts
from site_agent.domain import health
from site_agent.domain.instance import DataService, Instance

logger = logging.getLogger(__name__)

EXISTING_SECONDS = 5.0


class ExistingWatch:
    """Records how the attached data services of running instances are, as their brokers' checks say."""

    def __init__(self, journal: Journal, brokers: Brokers, secrets: SiteSecrets) -> None:
        self._journal = journal
        self._brokers = brokers
        self._secrets = secrets
        self._doubts = Doubts()

    async def look(self) -> None:
        """One round over all of them, at once; a change is believed when it was seen twice."""
        watched = [
            (instance, service)
            for instance in self._journal.site.instances.values()
            if instance.state in ("running", "degraded")
            for service in instance.data_services.values()
            if service.attached
        ]
        found = await asyncio.gather(*(self._ask(instance, service) for instance, service in watched))
        changed: list[health.Change] = []
        for (instance, service), said in zip(watched, found, strict=True):
            if said is not None and self._doubts.believed((instance.id, service.name), service.healthy, said.healthy):
                message = "" if said.healthy else said.message
                event = ev.DataServiceHealthChanged(data_service=service.name, healthy=said.healthy, message=message)
                changed.append((instance.id, event))
        if changed:
            await self._journal.record(lambda site: health.verdicts(site, changed), each=True, need="spare")

    async def _ask(self, instance: Instance, service: DataService) -> wire.Health | None:
        """``None`` when the broker does not answer: that says nothing about what it would look at."""
        try:
            existing = existing_of(service, secrets=self._secrets)
        except CalqueError as error:
            return wire.Health(healthy=False, message=error.problem.sentence())
        request = wire.DataServiceHealth(service_id=instance.service_id(service.name), existing=existing)
        try:
            return await self._brokers.once("dsb", service.broker, "health", request, wire.Health)
        except CalqueError as error:
            logger.info("broker %s does not say how %s is: %s", service.broker, service.name, error)
            return None
