"""What a command that was taken leads to."""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from uuid import UUID


class Started(NamedTuple):
    """A command was taken.

    ``operation`` is the operation that it started, ``None`` when the change is made already. ``target`` is the id
    of the instance or image it is about. ``queued`` is the site that has not answered yet, such as one that is
    offline: the command waits for it.
    """

    command: str
    target: str
    operation: str | None = None
    queued: str | None = None


def derived_id(command: str, what: str) -> str:
    """The id of what a command makes: a UUIDv7 of the command's time, the same when the command is sent again."""
    digest = hashlib.sha256(f"{command}/{what}".encode()).digest()
    mixed = bytearray(UUID(command).bytes[:6] + digest[:10])
    mixed[6] = 0x70 | mixed[6] & 0x0F
    mixed[8] = 0x80 | mixed[8] & 0x3F
    return str(UUID(bytes=bytes(mixed)))
