"""References in environment values: ``${service.attribute}``; ``$${`` stands for a literal ``${``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_PIECE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_REFERENCE = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?)\.([a-z][a-z0-9_]{0,62})")
SERVICE_ATTRIBUTES = ("host", "port", "url")
"""What a reference to an app service may name; a data service's attributes are its broker's."""


class Reference(NamedTuple):
    """``${service.attribute}``: ``service`` names a data service or an app service of the same template."""

    service: str
    attribute: str


class MalformedReference(ValueError):
    """A ``${`` that begins no reference. The message shows the text at fault."""


def references(value: str) -> list[Reference]:
    """The references in ``value`` in their order; raises :class:`MalformedReference` for a malformed one."""
    found: list[Reference] = []

    def note(reference: Reference) -> str:
        found.append(reference)
        return ""

    resolve(value, note)
    return found


def resolve(value: str, lookup: Callable[[Reference], str]) -> str:
    """``value`` with each reference replaced by what ``lookup`` says, and each ``$${`` by ``${``.

    Raises :class:`MalformedReference` for a malformed reference, and what ``lookup`` raises.
    """

    def replaced(match: re.Match[str]) -> str:
        text = match.group(0)
        if text == "$${":
            return "${"
        inner = _REFERENCE.fullmatch(match.group(1) or "")
        if inner is None:
            raise MalformedReference(value[match.start() : match.start() + 40] if match.group(1) is None else text)
        return lookup(Reference(inner.group(1), inner.group(2)))

    return _PIECE.sub(replaced, value)
