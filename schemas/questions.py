"""What queries and their replies have in common."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from schemas.base import Demand, Fact


class Query(Demand, frozen=True, kw_only=True):
    """The base of all queries."""

    TYPE: ClassVar[str]


class View(Fact, frozen=True, kw_only=True):
    """The base of all replies to queries."""

    TYPE: ClassVar[str]


class QueryContract(NamedTuple):
    """The types of one query."""

    query: type[Query]
    reply: type[Fact]
