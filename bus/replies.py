"""Replies to requests: one subscription for all that are under way on a connection."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from bus.messages import Message

Take = Callable[[Message | None], None]


class Replies:
    """Hands each reply to whoever waits for it. Replies to nobody, most of them late, are dropped."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self._waiting: dict[str, Take] = {}
        self._numbers = count(1)

    @property
    def subject(self) -> str:
        """What to subscribe to."""
        return f"{self._inbox}.*"

    def expect(self, take: Take) -> str:
        """The subject of replies that ``take`` gets until :meth:`forget`; ``None`` says that no more can come."""
        inbox = f"{self._inbox}.{next(self._numbers)}"
        self._waiting[inbox] = take
        return inbox

    def forget(self, inbox: str) -> None:
        """Nobody waits for replies to ``inbox`` any more."""
        self._waiting.pop(inbox, None)

    def hear(self, message: Message) -> None:
        """A reply came."""
        take = self._waiting.get(message.subject)
        if take is not None:
            take(message)

    def cut(self) -> None:
        """The connection broke: what was asked over it is not answered any more."""
        for take in list(self._waiting.values()):
            take(None)
