"""Which Struct belongs to which message type. Types end in ``.v<n>``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from schemas.base import Demand, Fact

C = TypeVar("C", bound=type)

MESSAGES: dict[str, type[Fact] | type[Demand]] = {}


def message(kind: str, *, version: int = 1) -> Callable[[C], C]:
    """Register a Struct as the data of messages of type ``calque.<kind>.v<version>`` (class attribute ``TYPE``)."""

    def register(cls: C) -> C:
        name = f"calque.{kind}.v{version}"
        if name in MESSAGES:
            raise ValueError(f"message type {name} is registered twice")
        cls.TYPE = name  # type: ignore[attr-defined]
        MESSAGES[name] = cls
        return cls

    return register


def event(aggregate: str, name: str, *, version: int = 1) -> Callable[[C], C]:
    """Register an event: a fact about one ``aggregate``, its ``name`` in the past tense.

    A ``version`` beyond the first needs an upcaster from the one before (:mod:`schemas.upcasting`).
    """

    def register(cls: C) -> C:
        cls.AGGREGATE = aggregate  # type: ignore[attr-defined]
        cls.EVENT = name  # type: ignore[attr-defined]
        return message(f"event.{aggregate}.{name}", version=version)(cls)

    return register


def command(to: str, aggregate: str, verb: str) -> Callable[[C], C]:
    """Register a command ``to`` the ``hub`` or a ``site``."""

    def register(cls: C) -> C:
        cls.AGGREGATE = aggregate  # type: ignore[attr-defined]
        cls.VERB = verb  # type: ignore[attr-defined]
        return message(f"command.{to}.{aggregate}.{verb}")(cls)

    return register
