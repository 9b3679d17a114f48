"""What all methods of the client stand on, whichever module they are in."""

from __future__ import annotations

import abc
from typing import TypeVar

from hub.client.errors import client_error
from hub.client.started import Started
from schemas import queries
from schemas.commands import Command
from schemas.names import check_name

T = TypeVar("T", bound=queries.View)


class Asking(abc.ABC):
    """Sends commands, asks questions, and changes what is not stored."""

    @abc.abstractmethod
    async def ask(self, what: str, question: queries.Query, reply: type[T]) -> T: ...

    @abc.abstractmethod
    async def _ask_on(
        self,
        subject: str,
        question: queries.Query,
        reply: type[T],
        *,
        seconds: float,
        give_up: str = "",
        lost_after: float | None = None,
    ) -> T: ...

    @abc.abstractmethod
    async def _act(self, what: str, data: queries.Query, reply: type[T]) -> T: ...

    @abc.abstractmethod
    async def _send(self, data: Command, *, target: str, command: str | None) -> Started: ...

    def _named(self, name: str, *, field: str) -> None:
        if problem := check_name(name, field=field):
            raise client_error(problem)
