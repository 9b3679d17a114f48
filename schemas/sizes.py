"""What is too large about a message: which part of it, and what to do."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.problems import Problem, invalid

MOST_OF_IT = 0.5


def largest_field(data: object) -> tuple[str, int]:
    """The field that makes up most of ``data``, as a path, and its size in bytes as JSON; the whole when none does."""
    value: Any = msgspec.to_builtins(data)
    path: list[str] = []
    size = len(msgspec.json.encode(value))
    while isinstance(value, (dict, list)) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        found, key, part = max(((len(msgspec.json.encode(part)), key, part) for key, part in parts), key=_size)
        if found < size * MOST_OF_IT:
            break
        path.append(str(key))
        value, size = part, found
    return ".".join(path), size


def _size(entry: tuple[int, Any, Any]) -> int:
    return entry[0]


def oversized(data: object, *, what: str, size: int, limit: int) -> Problem:
    """``what`` (a command, an event) has ``size`` bytes, more than ``limit``."""
    field, bytes_ = largest_field(data)
    most = f"; {field} alone has {bytes_}" if field else ""
    return invalid(
        field or what,
        f"{what} has {size} bytes, more than the {limit} that a message may have{most}",
        "make it smaller: big content lies in a repository or an artifact, and messages refer to it by digest",
    )
