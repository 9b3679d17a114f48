"""Asks what a verb would do, with exactly the command that the verb would send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from hub.client.client import Client
from hub.client.started import Started
from schemas.commands import Command
from schemas.planning import PlanQuery, PlanView


async def planned(client: Client, verb: Callable[[Client], Awaitable[Started]], *, anywhere: bool = False) -> PlanView:
    """What ``verb`` would do: ``planned(client, lambda client: client.stop("shop"))``. Nothing is changed.

    With ``anywhere`` the site that ``verb`` names is disregarded, and every site is asked. The digest of a candidate,
    given to the verb as ``expected_plan``, makes sure that exactly this is done. Raises what the verb raises.
    """
    data, target = await Rehearsal(client).command_of(verb)
    question = PlanQuery(
        aggregate=data.AGGREGATE,
        verb=data.VERB,
        target=target,
        data=msgspec.to_builtins(data),
        anywhere=anywhere,
    )
    return await client.ask("plan", question, PlanView)


class _Rehearsed(Exception):
    """The command that a verb would have sent."""

    def __init__(self, data: Command, target: str) -> None:
        super().__init__(type(data).__name__)
        self.data, self.target = data, target


class Rehearsal(Client):
    """A client whose verbs make their commands and send none. It speaks over the connection of another."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.bus, principal=client.principal)

    async def command_of(self, verb: Callable[[Client], Awaitable[Started]]) -> tuple[Command, str]:
        """The command of ``verb`` and the id of the aggregate that it is about."""
        try:
            await verb(self)
        except _Rehearsed as made:
            return made.data, made.target
        raise TypeError("the verb sends no command")

    async def _send(self, data: Command, *, target: str, command: str | None) -> Started:
        del command  # nothing is sent, so nothing needs an id
        raise _Rehearsed(data, target)
