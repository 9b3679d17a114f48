"""What the server does not let this connection say: told at once to whoever waits for a reply.

The server refuses a publish by an error that names the subject and nothing else; without this, the request would wait
for its whole timeout.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

_REFUSED = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class Refusals:
    """The requests of one connection that are under way, by subject."""

    def __init__(self) -> None:
        self._under_way: dict[str, set[asyncio.Timeout]] = {}
        self._refused: set[asyncio.Timeout] = set()

    @contextmanager
    def watching(self, subject: str, limit: asyncio.Timeout) -> Iterator[None]:
        """End ``limit`` at once when a publish to ``subject`` is refused meanwhile."""
        subject = subject.lower()  # the client makes what the server says lower case
        waiting = self._under_way.setdefault(subject, set())
        waiting.add(limit)
        try:
            yield
        finally:
            waiting.discard(limit)
            if not waiting:
                self._under_way.pop(subject, None)

    def note(self, error: Exception) -> None:
        """An error of the connection: perhaps a refusal."""
        found = _REFUSED.search(str(error))
        if found is None:
            return
        now = asyncio.get_running_loop().time()
        for limit in self._under_way.get(found[1].lower(), ()):
            self._refused.add(limit)
            limit.reschedule(now)

    def took(self, limit: asyncio.Timeout) -> bool:
        """Whether ``limit`` was ended by a refusal; asked once."""
        if limit not in self._refused:
            return False
        self._refused.discard(limit)
        return True
