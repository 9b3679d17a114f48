"""Dead letters: messages that could not be handled, kept with the reason, looked at, tried again or thrown away."""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.base import Fact
from schemas.problems import Problem
from schemas.questions import Query, View
from schemas.registry import message

MOST_LETTERS = 500
"""How many one answer holds."""
MOST_TEXT = 64 * 1024


class LetterView(Fact, frozen=True, kw_only=True):
    """A dead letter. Its ``id`` is ``<site or hub>-<key>``: the same message is the same letter, often as it fails.

    ``stream``, ``consumer`` and ``sequence`` say where it could not be handled the last time, ``subject`` what it was
    sent to. ``code`` is that of the problem; ``times`` counts how often it became a letter, ``delivered`` how often it
    was tried the last time. ``type`` and ``message`` (its id) are empty when it is no envelope. ``size`` is in bytes;
    of a ``cut`` one not all is there, so it can't be tried again.
    """

    id: str
    site: str
    stream: str
    consumer: str
    sequence: int
    subject: str
    code: str
    reason: str
    first_at: str
    at: str
    size: int
    type: str = ""
    message: str = ""
    times: int = 1
    delivered: int = 1
    cut: bool = False


class LetterFilter(Query, frozen=True, kw_only=True):
    """Which letters: those for which all that is given holds."""

    stream: str | None = None
    type: str | None = None
    code: str | None = None
    limit: int = MOST_LETTERS


@message("query.letters")
class LettersQuery(LetterFilter, frozen=True, kw_only=True):
    """Dead letters of the hub and of all sites, or those that a filter lets through. ``site`` may be ``hub``."""

    site: str | None = None


@message("view.letters")
class LettersView(View, frozen=True, kw_only=True):
    """Letters, oldest first; ``more`` is how many were left out, ``silent`` are sites that did not answer."""

    letters: tuple[LetterView, ...]
    more: int = 0
    silent: tuple[str, ...] = ()


@message("query.letter")
class LetterQuery(Query, frozen=True, kw_only=True):
    """One dead letter, whole."""

    id: str


@message("view.letter")
class WholeLetter(View, frozen=True, kw_only=True):
    """A letter and the message in it: ``envelope`` when it is JSON, else ``null`` and ``text``, with what is no
    UTF-8 escaped.

    ``fault`` says why it is no message of ours, if it is none.
    """

    letter: LetterView
    envelope: msgspec.Raw = msgspec.Raw(b"null")
    text: str = ""
    fault: str = ""


class LetterOutcome(Fact, frozen=True, kw_only=True):
    """What became of one letter. ``sent``: it is on its way again, and a letter no more. ``handled``: done at once.
    ``discarded``. ``kept``: it could not be, and ``problem`` says why."""

    id: str
    state: Literal["sent", "handled", "discarded", "kept"]
    problem: Problem | None = None


@message("act.letter_retry")
class RetryLetters(Query, frozen=True, kw_only=True):
    """Try these dead letters once more. What fails again is a letter again, the same one, with the new reason."""

    ids: tuple[str, ...]


@message("act.letter_discard")
class DiscardLetters(Query, frozen=True, kw_only=True):
    """Throw these dead letters away."""

    ids: tuple[str, ...]


@message("view.letter_outcomes")
class LetterOutcomes(View, frozen=True, kw_only=True):
    """What became of each, in the order of the question."""

    outcomes: tuple[LetterOutcome, ...]


@message("rpc.letters")
class SiteLetters(LetterFilter, frozen=True, kw_only=True):
    """The dead letters of the site."""


@message("rpc.letter")
class SiteLetter(Query, frozen=True, kw_only=True):
    """One of them, whole."""

    id: str


@message("rpc.letter_retry")
class SiteRetryLetters(Query, frozen=True, kw_only=True):
    """Try these once more."""

    ids: tuple[str, ...]


@message("rpc.letter_discard")
class SiteDiscardLetters(Query, frozen=True, kw_only=True):
    """Throw these away."""

    ids: tuple[str, ...]
