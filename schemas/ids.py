"""Ids made by callers: UUIDv7, sortable by the time they were made. Not for the pure parts."""

from __future__ import annotations

from uuid_utils import uuid7


def new_id() -> str:
    """A new UUIDv7 in its usual hexadecimal form."""
    return str(uuid7())
