"""The part of the client that is about dead letters: messages that could not be handled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hub.client.asking import Asking
from schemas import queries
from schemas.letters import (
    MOST_LETTERS,
    DiscardLetters,
    LetterOutcome,
    LetterOutcomes,
    LetterQuery,
    LettersQuery,
    LettersView,
    RetryLetters,
    WholeLetter,
)
from schemas.room import RoomQuery, RoomView, StreamFill
from schemas.strays import StraysQuery, StraysView

T = TypeVar("T", bound=queries.View)


class LetterVerbs(Asking):
    """Dead letters lie where they failed: at the hub, or at a site. Their ids say where."""

    async def dead_letters(
        self,
        *,
        site: str | None = None,
        stream: str | None = None,
        type: str | None = None,
        code: str | None = None,
        limit: int = MOST_LETTERS,
    ) -> LettersView:
        """Dead letters, oldest first: all, or those of a ``site`` (or ``hub``), of a stream, of a message type, with a
        problem's ``code``."""
        question = LettersQuery(site=site, stream=stream, type=type, code=code, limit=limit)
        return await self.ask("letters", question, LettersView)

    async def dead_letter(self, id: str) -> WholeLetter:
        """One dead letter with its message."""
        return await self.ask("letter", LetterQuery(id=id), WholeLetter)

    async def strays(self, *, site: str | None = None) -> StraysView:
        """Events that were set apart - forged, foreign, unreadable - by writer and reason, with the last examples."""
        return await self.ask("strays", StraysQuery(site=site), StraysView)

    async def room(self) -> tuple[StreamFill, ...]:
        """How full the hub's streams are."""
        return (await self.ask("room", RoomQuery(), RoomView)).streams

    async def retry_dead_letters(self, ids: Sequence[str]) -> tuple[LetterOutcome, ...]:
        """Have each tried once more; a command has its one effect however often. What fails again is a letter again."""
        return (await self._act("letter_retry", RetryLetters(ids=tuple(ids)), LetterOutcomes)).outcomes

    async def discard_dead_letters(self, ids: Sequence[str]) -> tuple[LetterOutcome, ...]:
        """Throw each away."""
        return (await self._act("letter_discard", DiscardLetters(ids=tuple(ids)), LetterOutcomes)).outcomes
