"""What a check is: an id, a sentence that must hold, where the contract says so, and the function that finds out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from schemas.values import BrokerKind

EVERY_KIND: tuple[BrokerKind, ...] = ("dsb", "psb", "crb")

Act = Callable[[Any], Awaitable[None]]


class Unmet(Exception):
    """The contract is not kept. ``sent`` and ``came`` are what crossed the bus, secrets masked; both may be empty,
    then the last exchange of the check is shown."""

    def __init__(self, came: str, *, sent: str = "") -> None:
        super().__init__(came)
        self.sent = sent
        self.came = came


class NotApplicable(Exception):
    """The check can't be made here; the message says what is missing."""


class Check(NamedTuple):
    """One check. ``alone``: nothing else may happen at the broker meanwhile. ``restarts``: it waits for a restart."""

    id: str
    sentence: str
    spec: str
    kinds: tuple[BrokerKind, ...]
    act: Act
    alone: bool = False
    restarts: bool = False


CHECKS: dict[str, Check] = {}


def check(
    id: str,
    sentence: str,
    *,
    spec: str,
    kinds: tuple[BrokerKind, ...] | None = None,
    alone: bool = False,
    restarts: bool = False,
) -> Callable[[Act], Act]:
    """Register a check. The id's first word is its kind, ``any`` for all of them."""

    def register(act: Act) -> Act:
        if id in CHECKS:
            raise ValueError(f"the check {id} is registered twice")
        of: tuple[BrokerKind, ...] = kinds or _kinds_of(id)
        CHECKS[id] = Check(id, sentence, spec, of, act, alone, restarts)
        return act

    return register


def _kinds_of(id: str) -> tuple[BrokerKind, ...]:
    first = id.partition(".")[0]
    return EVERY_KIND if first == "any" else tuple(kind for kind in EVERY_KIND if kind == first)


def holds(condition: object, otherwise: str, *, sent: str = "") -> None:
    """Raise :class:`Unmet` with ``otherwise`` unless ``condition`` is true."""
    if not condition:
        raise Unmet(otherwise, sent=sent)
