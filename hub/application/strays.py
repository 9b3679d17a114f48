"""Tells which events are set apart: what this hub has counted, and what sites have forged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from bus.strays import Strays
from hub.application.context import Context
from schemas.envelope import Envelope
from schemas.problems import CalqueError, not_found
from schemas.strays import StraysQuery, StraysView, StrayView
from schemas.subjects import HUB

LookForForged = Callable[[str, Sequence[str]], Awaitable[StrayView | None]]
"""What a site has forged, with examples of these other writers."""
AT_ONCE = 16


class StrayEvents:
    """The query ``strays``."""

    def __init__(self, context: Context, strays: Strays, *, forged: LookForForged) -> None:
        self._context = context
        self._strays = strays
        self._forged = forged
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def strays(self, query: StraysQuery, _envelope: Envelope) -> StraysView:
        """``strays``"""
        sites = sorted(self._context.site_states())
        if query.site not in (None, HUB, *sites):
            raise CalqueError(
                not_found("site", f"there is no site {query.site!r}", f"use one of: {', '.join([HUB, *sites])}")
            )
        counted = [view for view in self._strays.views() if query.site in (None, view.writer)]
        asked = [site for site in sites if query.site in (None, site)]
        found = await asyncio.gather(*(self._of_site(site, sites) for site in asked))
        return StraysView(strays=(*counted, *(view for view in found if view is not None)), since=self._strays.since)

    async def _of_site(self, site: str, sites: Sequence[str]) -> StrayView | None:
        async with self._slots:
            return await self._forged(site, [HUB, *(other for other in sites if other != site)])
