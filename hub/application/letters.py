"""Dead letters of the hub and of its sites: each place keeps its own, and the hub asks the sites for theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from bus.letters import LetterBox
from hub.application.context import Context
from schemas.envelope import Envelope
from schemas.letters import (
    MOST_LETTERS,
    DiscardLetters,
    LetterOutcome,
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
from schemas.problems import CalqueError, not_found
from schemas.questions import Query, View
from schemas.subjects import HUB

V = TypeVar("V", bound=View)

SITE_SECONDS = 2.0
"""How long a listing waits for one site."""


class Letters:
    """One method per question and act. Each raises :class:`CalqueError` with the problem that the caller gets."""

    def __init__(self, context: Context, box: LetterBox) -> None:
        self._context = context
        self._box = box

    async def letters(self, query: LettersQuery, _envelope: Envelope) -> LettersView:
        """``letters``, oldest first"""
        sites = sorted(self._context.site_states()) if query.site is None else [query.site]
        self._check(sites[0] if query.site is not None else HUB)
        wanted = SiteLetters(stream=query.stream, type=query.type, code=query.code, limit=query.limit)
        own = await self._box.list(wanted) if query.site in (None, HUB) else LettersView(letters=())
        views = await asyncio.gather(*(self._of_site(site, wanted) for site in sites if site != HUB))
        silent = tuple(site for site, view in views if view is None)
        answered = [own, *(view for _, view in views if view is not None)]
        found = sorted((letter for view in answered for letter in view.letters), key=lambda letter: letter.at)
        more = sum(view.more for view in answered) + max(len(found) - min(query.limit, MOST_LETTERS), 0)
        return LettersView(letters=tuple(found[: query.limit]), more=more, silent=silent)

    async def letter(self, query: LetterQuery, _envelope: Envelope) -> WholeLetter:
        """``letter``"""
        place = self._place(query.id)
        if place == HUB:
            return await self._box.whole(query.id)
        return await self._context.outbound.ask_site(place, "letter", SiteLetter(id=query.id), WholeLetter)

    async def letter_retry(self, request: RetryLetters, _envelope: Envelope, _subject: str) -> LetterOutcomes:
        """``letter_retry``"""
        found = await self._box.retry([id for id in request.ids if _place_in(id) == HUB])
        return await self._everywhere("letter_retry", request.ids, found.outcomes, SiteRetryLetters)

    async def letter_discard(self, request: DiscardLetters, _envelope: Envelope, _subject: str) -> LetterOutcomes:
        """``letter_discard``"""
        found = await self._box.discard([id for id in request.ids if _place_in(id) == HUB])
        return await self._everywhere("letter_discard", request.ids, found.outcomes, SiteDiscardLetters)

    async def _everywhere(
        self,
        operation: str,
        ids: Sequence[str],
        own: Sequence[LetterOutcome],
        question: type[SiteRetryLetters | SiteDiscardLetters],
    ) -> LetterOutcomes:
        """The outcomes of all, in the order of ``ids``; a site that does not answer keeps its letters."""
        outcomes = {each.id: each for each in own}
        by_place: dict[str, list[str]] = {}
        for id in ids:
            if id not in outcomes:
                by_place.setdefault(_place_in(id), []).append(id)
        for place, wanted in by_place.items():
            try:
                self._place(wanted[0])
                said = await self._context.outbound.ask_site(
                    place, operation, question(ids=tuple(wanted)), LetterOutcomes
                )
            except CalqueError as error:
                outcomes.update({id: LetterOutcome(id=id, state="kept", problem=error.problem) for id in wanted})
            else:
                outcomes.update({each.id: each for each in said.outcomes})
        return LetterOutcomes(outcomes=tuple(outcomes[id] for id in dict.fromkeys(ids) if id in outcomes))

    async def _of_site(self, site: str, wanted: Query) -> tuple[str, LettersView | None]:
        try:
            async with asyncio.timeout(SITE_SECONDS):
                return site, await self._context.outbound.ask_site(site, "letters", wanted, LettersView)
        except (TimeoutError, CalqueError) as error:
            if isinstance(error, CalqueError) and not error.problem.temporary:
                raise
            return site, None

    def _place(self, id: str) -> str:
        place = _place_in(id)
        if place != HUB and place not in self._context.site_states():
            raise CalqueError(not_found("id", f"there is no dead letter {id!r}", "see: calque dlq list"))
        return place

    def _check(self, site: str) -> None:
        known = self._context.site_states()
        if site != HUB and site not in known:
            raise CalqueError(
                not_found("site", f"there is no site {site!r}", f"use one of: {', '.join([HUB, *sorted(known)])}")
            )


def _place_in(id: str) -> str:
    return id.rpartition("-")[0]
