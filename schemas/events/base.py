"""What all events have in common."""

from __future__ import annotations

from typing import ClassVar

from schemas.base import Fact


class Event(Fact, frozen=True, kw_only=True):
    """The base of all events."""

    TYPE: ClassVar[str]
    AGGREGATE: ClassVar[str]
    EVENT: ClassVar[str]
