"""Grants to copies: for this site's own brokers, for another site (sealed to it), and from another site."""

from __future__ import annotations

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

GRANT_SECONDS = 900.0
ASK_SECONDS = 15.0


class Grants:
    """Short-lived access to copies. A grant is held in memory and travels in request traffic only."""

    def __init__(self, site: Callable[[], Site], *, bus: Bus, brokers: Brokers, key: SealKey) -> None:
        self._site = site
        self._bus = bus
        self._brokers = brokers
        self._key = key

    async def read_here(self, copy: str, *, on: str) -> wire.CopyGrant:
        """A read grant for a broker of this site."""
        request = wire.OpenRead(copy=copy, ttl_seconds=6 * 3600.0)
        granted = await self._brokers.call("crb", self._holder(copy), "open_read", request, wire.Granted, on=on)
        return granted.grant

    async def for_site(self, request: queries.SiteGrant) -> queries.GrantView:
        """A read grant for another site's repository, sealed to that site."""
        opened = wire.OpenRead(
            copy=request.copy, ttl_seconds=GRANT_SECONDS, client_fingerprint=request.client_fingerprint
        )
        granted = await self._brokers.once(
            "crb", self._holder(request.copy), "open_read", opened, wire.Granted, timeout_seconds=PROMPT_SECONDS
        )
        return queries.GrantView(grant=seal(msgspec.json.encode(granted.grant), public_key=request.public_key))

    async def from_site(self, copy: str, *, source: str, operation: str) -> wire.CopyGrant:
        """A read grant for a copy at ``source``, asked of the hub, which lets the two sites meet."""
        question = queries.AskGrant(copy=copy, source=source, operation=operation)
        subject = site_ask(site=self._site().name, operation="grant")
        answer = await self._bus.ask(
            subject, question, queries.GrantView, source=self._site().name, timeout_seconds=ASK_SECONDS
        )
        return msgspec.json.decode(self._key.open(answer.grant), type=wire.CopyGrant)

    def _holder(self, copy: str) -> str:
        repository = self._site().repository_of(copy)
        if repository is None:
            raise CalqueError(not_found("copy", f"no repository of site {self._site().name} holds copy {copy}"))
        return repository.partition("/")[2]
