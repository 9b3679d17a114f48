"""Long operations of the reference brokers: once by id, joined, cancelled, remembered; and how each can be wrong."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from brokers.testkit.reference.wire import Handler, WireBroker
from schemas.brokers import (
    CONTRACTS,
    CancelRequest,
    Change,
    DataServiceHealth,
    Health,
    InfoRequest,
    Outcome,
    Reply,
    StatusRequest,
)
from schemas.envelope import to_raw
from schemas.problems import CalqueError, conflict, invalid, not_found, permanent

START_SECONDS = 0.005
"""What every long operation takes at least, so that duplicates find it running."""


class Running(NamedTuple):
    """A long operation that goes on."""

    operation: str
    task: asyncio.Task[None]
    key: str


class EngineBroker(WireBroker):
    """Methods named as the operations do the work; ``disk['outcomes']`` has ``(operation, outcome)`` by id."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.running: dict[str, Running] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._cancelling: set[str] = set()
        self.outcomes: dict[str, tuple[str, Outcome]] = self.disk.setdefault("outcomes", {})
        self.made: dict[str, str] = self.disk.setdefault("made", {})
        self.blocked: set[str] = self.disk.setdefault("blocked", set())
        self.doubled: set[str] = self.disk.setdefault("doubled", set())

    def key_of(self, request: Change) -> str:
        """What a change is about: the service or the copy."""
        raise NotImplementedError

    async def describe_self(self) -> Any:
        """The broker's info."""
        raise NotImplementedError

    # --- life

    async def open(self) -> None:
        if not self.restarted:
            return
        for id, (operation, outcome) in list(self.outcomes.items()):
            if outcome.state == "cancelled" and self.broken("any.restart.cancelled"):
                del self.outcomes[id]
            if outcome.state == "succeeded" and self.broken("any.restart.outcome"):
                lost = Outcome(id=id, state="failed", problem=permanent("lost", "it was forgotten"))
                self.outcomes[id] = (operation, lost)

    async def close(self) -> None:
        for id, running in list(self.running.items()):
            running.task.cancel()
            await asyncio.wait({running.task})
            if self.broken("any.restart.running"):
                lost = Outcome(id=id, state="failed", problem=permanent("lost", "it was interrupted"))
                self.outcomes[id] = (running.operation, lost)

    # --- requests

    def handler(self, operation: str) -> Handler:
        own: dict[str, Handler] = {
            "status": self._status,
            "cancel": self._cancel,
            "info": self._info_of,
            "health": self._health,
        }
        if operation in own:
            return own[operation]
        method = getattr(self, operation)
        if not CONTRACTS[self.kind][operation].long:
            return self._short(operation, method)

        async def begin(request: Change) -> Reply:
            return await self._begin(operation, request, method)

        return begin

    def _short(self, operation: str, method: Handler) -> Handler:
        async def change(request: Any) -> Reply:
            if isinstance(request, Change):
                known = self.outcomes.get(request.id)
                if known is not None and known[0] not in ("", operation):
                    raise CalqueError(conflict("id", f"{request.id} is the id of a {known[0]}"))
            return await method(request)

        return change

    async def _info_of(self, _request: InfoRequest) -> Reply:
        found: Reply = await self.describe_self()
        return found

    async def _health(self, request: DataServiceHealth) -> Reply:
        if request.service_id is not None:
            return await self.health_of(request.service_id)
        return Health(healthy=not self.broken("any.health"), message="a defect")

    async def health_of(self, _service_id: str) -> Health:
        """Of one data service."""
        raise CalqueError(invalid("service_id", "there are no data services here"))

    async def _begin(self, operation: str, request: Change, method: Handler) -> Outcome:
        id, key = request.id, self.key_of(request)
        if known := self._known(operation, request):
            return known
        if "/" in id and self.broken("any.id.slashes"):
            raise CalqueError(invalid("id", "it holds a slash"))
        if id in self.running:
            if self.broken("any.repeat.concurrent"):
                raise CalqueError(conflict("id", "it runs already"))
            if self.broken("any.running.joined"):
                return Outcome(id=id, state="failed", problem=permanent("busy", "it runs already"))
            return Outcome(id=id, state="running")
        if self.broken("any.running.others") and self.running:
            await asyncio.wait({each.task for each in self.running.values()})
        if key in self.blocked or (self.broken("any.repeat.attempt") and self.made.get(key, id) != id):
            raise CalqueError(conflict("id", "it was there already"))
        task = asyncio.create_task(self._run(operation, request, method, key))
        self.running[id] = Running(operation, task, key)
        return Outcome(id=id, state="running")

    def _known(self, operation: str, request: Change) -> Outcome | None:
        id = request.id
        if id not in self.outcomes:
            return None
        of, outcome = self.outcomes[id]
        if of not in ("", operation):
            if self.broken("any.id.other_operation"):
                return outcome
            raise CalqueError(conflict("id", f"{id} is the id of a {of}"))
        again = "any.cancel.start_again" if of else "any.cancel.before_start"
        if outcome.state == "cancelled" and self.broken(again):
            del self.outcomes[id]
            return None
        if outcome.state == "succeeded" and self.broken("any.repeat.answer"):
            return Outcome(id=id, state="failed", problem=permanent("exists", "it was done already"))
        if self.broken("any.repeat.effect"):
            self.doubled.add(self.key_of(request))
        return outcome

    async def _run(self, operation: str, request: Change, method: Handler, key: str) -> None:
        id = request.id
        try:
            await asyncio.sleep(START_SECONDS)
            async with self._locks.setdefault(key, asyncio.Lock()):
                result = await method(request)
            self.made[key] = id
            outcome = Outcome(id=id, state="succeeded", result=to_raw(result))
        except asyncio.CancelledError:
            if id not in self._cancelling:
                raise
            outcome = Outcome(id=id, state="cancelled")
            if self.broken("any.cancel.answer"):
                outcome = Outcome(id=id, state="failed", problem=permanent("stopped", "it was stopped"))
            if self.broken("any.cancel.new_attempt"):
                self.blocked.add(key)
        except CalqueError as error:
            outcome = Outcome(id=id, state="failed", problem=error.problem)
        finally:
            self.running.pop(id, None)
        self.outcomes[id] = (operation, outcome)

    async def _status(self, request: StatusRequest) -> Reply:
        id = request.id
        if id in self.running and not self.broken("any.running.status"):
            return Outcome(id=id, state="running")
        if id in self.outcomes:
            outcome = self.outcomes[id][1]
            if outcome.state == "succeeded" and self.broken("any.status.finished"):
                return Outcome(id=id, state="succeeded")
            return outcome
        if self.broken("any.status.unknown") or (self.restarted and self.broken("any.restart.unknown")):
            return Outcome(id=id, state="cancelled")
        raise CalqueError(not_found("id", f"no operation {id} is known here"))

    async def _cancel(self, request: CancelRequest) -> Reply:
        id = request.id
        if id in self.running:
            self._cancelling.add(id)
            task = self.running[id].task
            task.cancel()
            await asyncio.wait({task})
        if id in self.outcomes:
            operation, outcome = self.outcomes[id]
            if outcome.state == "succeeded" and self.broken("any.cancel.finished"):
                outcome = Outcome(id=id, state="cancelled")
                self.outcomes[id] = (operation, outcome)
            if self.broken("any.cancel.repeated") and id in self.disk.setdefault("cancelled", set()):
                raise CalqueError(conflict("id", "it was cancelled already"))
            self.disk.setdefault("cancelled", set()).add(id)
            return outcome
        if self.broken("any.cancel.unknown"):
            raise CalqueError(not_found("id", f"no operation {id} is known here"))
        outcome = Outcome(id=id, state="cancelled")
        self.outcomes[id] = ("", outcome)
        return outcome
