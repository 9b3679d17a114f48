"""What the hub may ask about the dead letters of this site."""

from __future__ import annotations

from bus.letters import LetterBox
from bus.service import Service
from schemas.envelope import Envelope
from schemas.letters import (
    LetterOutcomes,
    LettersView,
    SiteDiscardLetters,
    SiteLetter,
    SiteLetters,
    SiteRetryLetters,
    WholeLetter,
)
from schemas.subjects import site_rpc


class LetterAnswers:
    """Answers from the site's own letter box."""

    def __init__(self, box: LetterBox, *, site: str) -> None:
        self._box = box
        self._site = site

    def add_to(self, service: Service) -> None:
        """Have the service answer these too. Before it starts."""

        def subject(operation: str) -> str:
            return site_rpc(site=self._site, operation=operation)

        service.endpoint("letters", subject("letters"), SiteLetters, LettersView, self._list)
        service.endpoint("letter", subject("letter"), SiteLetter, WholeLetter, self._whole)
        service.endpoint("letter-retry", subject("letter_retry"), SiteRetryLetters, LetterOutcomes, self._retry)
        service.endpoint("letter-discard", subject("letter_discard"), SiteDiscardLetters, LetterOutcomes, self._discard)

    async def _list(self, request: SiteLetters, _: Envelope) -> LettersView:
        return await self._box.list(request)

    async def _whole(self, request: SiteLetter, _: Envelope) -> WholeLetter:
        return await self._box.whole(request.id)

    async def _retry(self, request: SiteRetryLetters, _: Envelope) -> LetterOutcomes:
        return await self._box.retry(request.ids)

    async def _discard(self, request: SiteDiscardLetters, _: Envelope) -> LetterOutcomes:
        return await self._box.discard(request.ids)
