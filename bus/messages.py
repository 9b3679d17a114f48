"""A message as this room hands it on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple


class Message(NamedTuple):
    """A message as it came. ``headers`` is ``None`` when there were none."""

    subject: str
    payload: bytes
    reply: str | None
    headers: Mapping[str, str] | None = None

    @property
    def status(self) -> str | None:
        """The status of a control message of the server (``100``, ``404``, ``503``, ...)."""
        return self.headers.get("Status") if self.headers else None


Handler = Callable[[Message], Awaitable[None]]
Sink = Callable[[Message], None]
