"""The verbs and queries of the client that are about copy repositories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hub.client.asking import Asking
from hub.client.started import Started
from schemas import commands, queries
from schemas.names import repository_token
from schemas.repositories import (
    RepositoriesQuery,
    RepositoriesView,
    RepositoryCondition,
    RepositoryQuery,
    RepositoryView,
    ScanQuery,
    ScanView,
)

T = TypeVar("T", bound=queries.View)


class RepositoryVerbs(Asking):
    """A repository is named by its site and its name there."""

    async def import_repository(
        self, name: str, *, site: str, trust: Sequence[str] = (), command: str | None = None
    ) -> Started:
        """Record what lies in a repository and is on no record; ``trust`` are signing keys to take from now on."""
        data = commands.ImportRepository(trust=tuple(trust))
        return await self._send(data, target=repository_token(site, name), command=command)

    async def verify_repository(
        self, name: str, *, site: str, copies: Sequence[str] = (), command: str | None = None
    ) -> Started:
        """Have all copies of a repository, or those named, read and compared with their digests."""
        data = commands.VerifyRepository(copies=tuple(copies))
        return await self._send(data, target=repository_token(site, name), command=command)

    async def collect_repository(self, name: str, *, site: str, command: str | None = None) -> Started:
        """Remove data from a repository that nothing refers to."""
        return await self._send(commands.CollectRepository(), target=repository_token(site, name), command=command)

    async def repositories(self, *, site: str | None = None) -> tuple[RepositoryView, ...]:
        """Repositories, of one site or of all, with what the record says lies there."""
        question = RepositoriesQuery(site=site)
        return (await self.ask("repositories", question, RepositoriesView)).repositories

    async def repository(self, name: str, *, site: str) -> RepositoryCondition:
        """How full a repository is now, by its broker's own word."""
        question = RepositoryQuery(site=site, name=name)
        return await self.ask("repository", question, RepositoryCondition)

    async def scan_repository(self, name: str, *, site: str) -> ScanView:
        """What lies in a repository now; nothing is recorded."""
        return await self.ask("scan", ScanQuery(site=site, name=name), ScanView)
