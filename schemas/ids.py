"""Ids made by callers: UUIDv7, sortable by the time they were made. Not for the pure parts."""

from __future__ import annotations

from uuid_utils import uuid7


def new_id() -> str:
    """A new UUIDv7 in its usual hexadecimal form."""
    return str(uuid7())


def effect_id(operation: str, step: str, attempt: int) -> str:
    """The id of one effect of an operation, the same however often it is sent."""
    return f"{operation}/{step}/{attempt}"
