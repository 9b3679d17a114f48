"""What the hub may ask about the copy repositories of this site: how full they are, and what lies there now."""

from __future__ import annotations

from bus.service import Service
from schemas import brokers as wire
from schemas import repositories as asked
from schemas.envelope import Envelope
from schemas.problems import CalqueError, not_found
from schemas.subjects import site_rpc
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.journal import Journal
from site_agent.application.repository_watch import RepositoryWatch

MOST_IMAGES = 300
"""How many images one answer holds: it has to fit into one message."""
MOST_VANISHED = 100


class RepositoryAnswers:
    """Two endpoints of the agent's service."""

    def __init__(self, journal: Journal, *, brokers: Brokers, repositories: RepositoryWatch) -> None:
        self._journal = journal
        self._brokers = brokers
        self._repositories = repositories

    def add_to(self, service: Service) -> None:
        """Before the service is started."""
        site = self._journal.site.name
        service.endpoint(
            "repository",
            site_rpc(site=site, operation="repository"),
            asked.SiteRepositoryQuery,
            asked.RepositoryCondition,
            self.repository,
        )
        service.endpoint("scan", site_rpc(site=site, operation="scan"), asked.SiteScan, asked.ScanView, self.scan)

    async def repository(self, request: asked.SiteRepositoryQuery, _: Envelope) -> asked.RepositoryCondition:
        """``repository``"""
        site = self._journal.site
        if request.name not in site.repository_order:
            there = ", ".join(site.repository_order) or "none"
            raise CalqueError(
                not_found(
                    "repository", f"site {site.name} has no copy repository {request.name!r}", f"there are: {there}"
                )
            )
        health = await self._brokers.once("crb", request.name, "health", wire.DataServiceHealth(), wire.Health)
        stats = await self._brokers.once("crb", request.name, "stats", wire.StatsRequest(), wire.RepositoryStats)
        return asked.RepositoryCondition(
            site=site.name,
            name=request.name,
            healthy=health.healthy,
            message=health.message,
            copies=stats.copies,
            images=stats.images,
            chunks=stats.chunks,
            stored=stats.stored,
            staging=stats.staging,
            free=stats.free,
            retention_seconds=stats.retention_seconds,
            locked_copies=stats.locked_copies,
            locked=stats.locked,
            locked_until=stats.locked_until,
        )

    async def scan(self, request: asked.SiteScan, _: Envelope) -> asked.ScanView:
        """``scan``"""
        found = await self._repositories.scan(request.name)
        return asked.ScanView(
            site=self._journal.site.name,
            name=request.name,
            images=found.images[:MOST_IMAGES],
            unlisted=max(len(found.images) - MOST_IMAGES, 0),
            loose=found.loose,
            vanished=found.vanished[:MOST_VANISHED],
        )
