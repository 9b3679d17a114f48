"""Strays: events that are in the record, or nearly, and are taken in by nobody: forged, foreign, unreadable."""

from __future__ import annotations

from schemas.base import Fact
from schemas.questions import Query, View
from schemas.registry import message

FORGED = "forged"
"""The reason of what a site's outbox held for others: it stays in ``IN_<site>`` and never gets into ``EVENTS``."""


class StrayView(Fact, frozen=True, kw_only=True):
    """Events of one writer that were set apart for one reason. ``examples`` are the last ones, newest last.

    Reasons: ``forged`` (of another's subjects), ``source`` (the envelope names another writer), ``type`` (not that of
    the subject), ``owner`` (a site's event about what only the hub decides, or the other way round), ``size``
    (more than 64 KiB), ``unreadable`` (no envelope), ``subject`` (no event's subject).
    """

    writer: str
    reason: str
    count: int
    last_at: str = ""
    examples: tuple[str, ...] = ()


@message("query.strays")
class StraysQuery(Query, frozen=True, kw_only=True):
    """Events that were set apart, by writer and reason. ``site`` may be ``hub``."""

    site: str | None = None


@message("view.strays")
class StraysView(View, frozen=True, kw_only=True):
    """Counted by the hub that answers, ``since`` its start; forged ones as long as they lie in the site's inbox."""

    strays: tuple[StrayView, ...]
    since: str
