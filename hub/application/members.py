"""Listens to the heartbeats of sites and records when they come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bus.events import Conflict
from hub.application.aggregates import append, load
from hub.application.context import Context
from hub.domain import membership
from schemas.envelope import timestamp
from schemas.events import Event
from schemas.names import check_site
from schemas.problems import CalqueError
from schemas.signals import SiteCondition
from schemas.values import SiteState

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
UNHEARD: SiteState | None = None


class Members:
    """``seconds`` is a clock that only goes forward."""

    def __init__(self, context: Context, *, seconds: Callable[[], float]) -> None:
        self._context = context
        self._seconds = seconds
        self._began = seconds()
        self._heard: dict[str, float] = {}
        self.last_beats: dict[str, str] = {}
        self.conditions: dict[str, SiteCondition] = {}

    async def heard(self, site: str, condition: SiteCondition | None = None) -> None:
        """A heartbeat arrived from ``site``, whose subject nobody else may use."""
        if self.note(site, condition):
            await self.check(site)

    def note(self, site: str, condition: SiteCondition | None = None) -> bool:
        """As :meth:`heard`, for who can't wait; says whether it was the first one of the site, which is to be checked
        then."""
        first = site not in self._heard
        if first and check_site(site, field="site") is not None:
            return False
        self._heard[site] = self._seconds()
        self.last_beats[site] = timestamp(self._context.clock())
        if condition is not None:
            self.conditions[site] = condition
        return first

    async def run(self) -> None:
        """Look at all sites for ever."""
        while True:
            for site in sorted({*self._heard, *self._context.state.sites.states}):
                await self.check(site)
            await asyncio.sleep(CHECK_SECONDS)

    async def check(self, site: str) -> None:
        """Record whether a site is there, if that has changed."""
        known = self._context.state.sites.states.get(site)
        if not self._decide(site, known):
            return
        try:
            loaded = await load(self._context.events, "membership", site)
            events = self._decide(site, loaded.fold(membership.evolve, UNHEARD))
            await append(self._context.events, (loaded, events))
        except Conflict:
            logger.debug("another hub has recorded a change of site %s", site)
        except CalqueError as error:
            logger.warning("the state of site %s can't be recorded now: %s", site, error)

    def _decide(self, site: str, state: SiteState | None) -> list[Event]:
        heard = site in self._heard
        silence = self._seconds() - self._heard.get(site, self._began)
        return membership.decide(state, heard=heard, silence_seconds=silence)
