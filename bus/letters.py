"""What is done with the dead letters of one place: hub and site agent answer the same questions about theirs.

A command is tried again by publishing it once more, as it was: whoever handles it recognises its id, so it has its one
effect however late. An event is handed to its handler at once, since nobody may publish to the record. A letter is
taken away only when its message has been taken; what fails again is the same letter, with the newer reason.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from bus.connection import CONTENT_HEADERS, Bus
from bus.dlq import FIRST_HEADER, TIMES_HEADER, DeadLetters, Letter, Unhandled
from bus.jetstream import JetStream
from bus.work import Delivery
from schemas.envelope import decode
from schemas.letters import (
    MOST_LETTERS,
    MOST_TEXT,
    LetterFilter,
    LetterOutcome,
    LetterOutcomes,
    LettersView,
    WholeLetter,
)
from schemas.problems import CalqueError, Problem, conflict, invalid, not_found, permanent

Handler = Callable[[Delivery], Awaitable[None]]

MOST_AT_ONCE = 100


class LetterBox:
    """The dead letters of ``place``.

    ``sent_again`` are the streams whose messages go to ``into`` once more; ``handlers`` take messages of others, by
    ``(stream, consumer)``.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        place: str,
        sent_again: Sequence[str],
        into: str,
        handlers: Mapping[tuple[str, str], Handler] | None = None,
    ) -> None:
        self._bus = bus
        self._js = JetStream(bus)
        self._place = place
        self._letters = DeadLetters(bus, place=place)
        self._sent_again = frozenset(sent_again)
        self._into = into
        self._handlers = dict(handlers or {})

    async def list(self, wanted: LetterFilter) -> LettersView:
        """Those that the filter lets through. Raises :class:`CalqueError`."""
        if not 1 <= wanted.limit <= MOST_LETTERS:
            raise CalqueError(invalid("limit", f"{wanted.limit} is out of range", f"use 1 to {MOST_LETTERS}"))
        found, more = await self._letters.list(wanted)
        return LettersView(letters=tuple(letter.view for letter in found), more=more)

    async def whole(self, id: str) -> WholeLetter:
        """One letter with its message. Raises :class:`CalqueError` ``not_found``."""
        letter = await self._find(id)
        fault = ""
        try:
            decode(letter.payload)
        except CalqueError as error:
            fault = str(error)
        shown = letter.payload[:MOST_TEXT]
        try:
            is_json = msgspec.json.decode(shown) is not None
        except (ValueError, RecursionError):
            is_json = False
        if not is_json:
            return WholeLetter(letter=letter.view, text=shown.decode("utf-8", "backslashreplace"), fault=fault)
        return WholeLetter(letter=letter.view, envelope=msgspec.Raw(shown), fault=fault)

    async def retry(self, ids: Sequence[str]) -> LetterOutcomes:
        """Try each once more, one after the other; one that can't be taken stays and says why."""
        return LetterOutcomes(outcomes=tuple([await self._outcome(id, self._retried) for id in _few(ids)]))

    async def discard(self, ids: Sequence[str]) -> LetterOutcomes:
        """Throw each away."""
        return LetterOutcomes(outcomes=tuple([await self._outcome(id, self._discarded) for id in _few(ids)]))

    async def _outcome(self, id: str, act: Callable[[Letter], Awaitable[LetterOutcome]]) -> LetterOutcome:
        try:
            return await act(await self._find(id))
        except CalqueError as error:
            return LetterOutcome(id=id, state="kept", problem=error.problem)

    async def _discarded(self, letter: Letter) -> LetterOutcome:
        await self._letters.remove(letter)
        return LetterOutcome(id=letter.view.id, state="discarded")

    async def _retried(self, letter: Letter) -> LetterOutcome:
        view = letter.view
        if view.cut:
            raise CalqueError(
                conflict("id", f"only {len(letter.payload)} of {view.size} bytes were kept", "discard it")
            )
        if view.stream in self._sent_again:
            # An id of its own for each letter: within the window of duplicates the stream would take it for the first.
            headers = {
                **CONTENT_HEADERS,
                "Nats-Msg-Id": f"{view.id}/{letter.at}",
                "Nats-Expected-Stream": self._into,
                TIMES_HEADER: str(view.times),
                FIRST_HEADER: view.first_at,
            }
            await self._js.publish(view.subject, letter.payload, headers=headers)
            await self._letters.remove(letter)
            return LetterOutcome(id=view.id, state="sent")
        handler = self._handlers.get((view.stream, view.consumer))
        if handler is None:
            raise CalqueError(
                conflict(
                    "id",
                    f"it was for {view.consumer} on {view.stream}, which is not this one's to feed",
                    "have its owner read it from the stream, then discard the letter",
                )
            )
        return await self._handled(letter, handler)

    async def _handled(self, letter: Letter, handler: Handler) -> LetterOutcome:
        view = letter.view
        delivery = Delivery(view.subject, letter.payload, view.sequence, view.delivered + 1, 0.0, self._bus, "")
        problem: Problem
        try:
            await handler(delivery)
        except CalqueError as error:
            problem = error.problem
        except Exception as error:
            problem = permanent("internal", f"{type(error).__name__}: {error}", remedy="its log says why")
        else:
            await self._letters.remove(letter)
            return LetterOutcome(id=view.id, state="handled")
        failure = Unhandled(
            view.stream,
            view.consumer,
            view.sequence,
            view.subject,
            letter.payload,
            problem.code,
            problem.sentence(),
            delivered=delivery.delivered,
        )
        await self._letters.bury(failure, again=True)
        return LetterOutcome(id=view.id, state="kept", problem=problem)

    async def _find(self, id: str) -> Letter:
        place, _, key = id.rpartition("-")
        letter = await self._letters.get(key) if place == self._place and key else None
        if letter is None:
            raise CalqueError(not_found("id", f"there is no dead letter {id!r}", "see: calque dlq list"))
        return letter


def _few(ids: Sequence[str]) -> Sequence[str]:
    if len(ids) > MOST_AT_ONCE:
        raise CalqueError(invalid("ids", f"{len(ids)} letters are too many at once", f"name at most {MOST_AT_ONCE}"))
    return list(dict.fromkeys(ids))
