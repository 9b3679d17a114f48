"""Grants to copies: for this site's own brokers, for another site (sealed to it), and from another site."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from bus.connection import Bus
from schemas import brokers as wire
from schemas import queries
from schemas.problems import CalqueError, not_found
from schemas.subjects import site_ask
from site_agent.adapters.brokers import PROMPT_SECONDS, Brokers
from site_agent.adapters.sealing import SealKey, seal
from site_agent.domain.site import Site

logger = logging.getLogger(__name__)

GRANT_SECONDS = 900.0
ASK_SECONDS = 15.0


class Grants:
    """Short-lived access to copies. A grant is held in memory and travels in request traffic only."""

    def __init__(self, site: Callable[[], Site], *, bus: Bus, brokers: Brokers, key: SealKey) -> None:
        self._site = site
        self._bus = bus
        self._brokers = brokers
        self._key = key

    async def read_here(self, copy: str, *, on: str, attempt: int = 1) -> wire.CopyGrant:
        """A read grant for a broker of this site, from a repository that answers.

        Another ``attempt`` begins with another repository, for what the one can't deliver the next may.
        """
        request = wire.OpenRead(copy=copy, ttl_seconds=6 * 3600.0)
        *others, last = _turned(self._holders(copy), by=attempt - 1)
        for repository in others:
            try:
                granted = await self._brokers.once(
                    "crb", repository, "open_read", request, wire.Granted, on=on, timeout_seconds=PROMPT_SECONDS
                )
            except CalqueError as error:
                logger.warning("copy %s can't be read from %s now: %s", copy, repository, error)
            else:
                return granted.grant
        return (await self._brokers.call("crb", last, "open_read", request, wire.Granted, on=on)).grant

    async def for_site(self, request: queries.SiteGrant) -> queries.GrantView:
        """A read grant for another site's repository, sealed to that site."""
        opened = wire.OpenRead(
            copy=request.copy, ttl_seconds=GRANT_SECONDS, client_fingerprint=request.client_fingerprint
        )
        *others, last = self._holders(request.copy)
        for repository in others:
            try:
                return await self._sealed(repository, opened, public_key=request.public_key)
            except CalqueError as error:
                logger.warning("copy %s can't be read from %s now: %s", request.copy, repository, error)
        return await self._sealed(last, opened, public_key=request.public_key)

    async def _sealed(self, repository: str, opened: wire.OpenRead, *, public_key: str) -> queries.GrantView:
        granted = await self._brokers.once(
            "crb", repository, "open_read", opened, wire.Granted, timeout_seconds=PROMPT_SECONDS
        )
        return queries.GrantView(grant=seal(msgspec.json.encode(granted.grant), public_key=public_key))

    async def from_site(self, copy: str, *, source: str, operation: str, repository: str) -> wire.CopyGrant:
        """A read grant for a copy at ``source``, asked of the hub, which lets the two sites meet.

        It is bound to the certificate of ``repository``, the one of this site that fetches.
        """
        question = queries.AskGrant(copy=copy, source=source, operation=operation, repository=repository)
        subject = site_ask(site=self._site().name, operation="grant")
        answer = await self._bus.ask(
            subject, question, queries.GrantView, source=self._site().name, timeout_seconds=ASK_SECONDS
        )
        return msgspec.json.decode(self._key.open(answer.grant), type=wire.CopyGrant)

    def _holders(self, copy: str) -> list[str]:
        found = self._site().holders(copy)
        if not found:
            raise CalqueError(not_found("copy", f"no repository of site {self._site().name} holds copy {copy}"))
        return found


def _turned(repositories: list[str], *, by: int) -> list[str]:
    start = by % len(repositories)
    return repositories[start:] + repositories[:start]
