"""Runs a program of Calque that kills itself (SIGKILL) when it comes by a label that a test has armed, once.

    python armed.py <module>

It is what the stack of the fault tests starts its parts with, in place of ``python -m <module>``. The program is the
real one; a few of its public functions are wrapped, so that the moments before and after each effect of an operation
have a label, ``<operation>/<step>/<victim>/<moment>``:

====== =============================== ====================================================================
victim moments                         what they stand around
====== =============================== ====================================================================
agent  before, after                   a step, or the undoing of one, as the agent of a site performs it: before
                                       it has asked anybody, and when all is done and nothing of it is stored
agent  fail                            a step, which is not performed and fails for good: nobody dies, and what was
                                       done is undone (steps called ``<step>-undo``)
agent  before, after (step ``accept``) a command: as it arrives, and when its decision is stored and the command
                                       is not acknowledged
dsb,   before, after                   an operation of a broker: before it has done anything, and when it is done
psb,                                   and neither kept nor answered
crb
hub    before, sent, after             a step of a hub's operation: before its command is stored for the site,
                                       when it is and nobody knows, and when its end is known and not stored
hub    before, after (step ``accept``) a command: before what begins its operation is stored, and after
hub    before, sent (step ``forward``) a command that is passed on to a site
====== =============================== ====================================================================

A label is armed by a file in ``armed/`` below the home; it is moved to ``fired/`` by the process that then dies, or
that kills another part of the stack when the file names one: so a server dies at an exact moment too. Every label that
a process came by stands in ``armed/passed``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ARMED, FIRED, PASSED = "armed", "fired", "passed"


class Arms:
    """The labels of one home: armed by tests, found by the programs of its stack."""

    def __init__(self, home: Path) -> None:
        self._armed, self._fired = home / ARMED, home / FIRED
        for directory in (self._armed, self._fired):
            directory.mkdir(exist_ok=True)
        self._passed = self._armed / PASSED
        self._status = home / "run" / "status.json"

    def arm(self, label: str, *, part: str = "") -> None:
        """The next process that comes by ``label`` dies, or another ``part`` of the stack."""
        (self._armed / _token(label)).write_text(part)

    def disarm(self, label: str) -> None:
        """Nobody dies of ``label`` from here on."""
        (self._armed / _token(label)).unlink(missing_ok=True)

    def fired(self, label: str) -> bool:
        """Whether a process died of ``label``."""
        return (self._fired / _token(label)).exists()

    def passed(self) -> list[str]:
        """Every label that a process came by, in order."""
        return self._passed.read_text().splitlines() if self._passed.exists() else []

    def come_by(self, label: str) -> None:
        """This process comes by ``label``: it goes on, or it dies here."""
        with self._passed.open("a") as log:
            log.write(f"{label}\n")
        if self.take(label):
            part = (self._fired / _token(label)).read_text()
            os.kill(self._pid(part) if part else os.getpid(), signal.SIGKILL)

    def take(self, label: str) -> bool:
        """Whether ``label`` is armed; it is not any more."""
        try:
            (self._armed / _token(label)).rename(self._fired / _token(label))
        except FileNotFoundError:
            return False
        return True

    def _pid(self, part: str) -> int:
        return int(json.loads(self._status.read_text())["parts"][part]["pid"])


def _token(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()


def _step(id: str, operation: str) -> str | None:
    """The step in the id of an effect, ``<operation>/<step>/<attempt>``; ``None`` when it is another one's."""
    inside = id.removeprefix(f"{operation}/")
    return inside.rpartition("/")[0] or None if inside != id else None


def arm_agent(arms: Arms) -> None:
    """Wrap what performs the steps of a site, and what takes its commands."""
    from bus.work import Delivery
    from schemas.envelope import decode
    from schemas.problems import CalqueError, permanent
    from site_agent.application.actions import Actions
    from site_agent.application.commands import CommandHandler

    def around(method: Callable[..., Awaitable[Any]], suffix: str) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def wrapped(self: Actions, operation: Any, step: Any, attempt: int) -> Any:
            label = f"{operation.id}/{step.id}{suffix}/agent"
            arms.come_by(f"{label}/before")
            if arms.take(f"{label}/fail"):
                raise CalqueError(permanent("armed", "a test has this step fail", field=step.part))
            result = await method(self, operation, step, attempt)
            arms.come_by(f"{label}/after")
            return result

        return wrapped

    handle = CommandHandler.handle

    @functools.wraps(handle)
    async def handled(self: CommandHandler, delivery: Delivery) -> None:
        label = f"{decode(delivery.payload).id}/accept/agent"
        arms.come_by(f"{label}/before")
        await handle(self, delivery)
        arms.come_by(f"{label}/after")

    _replace(Actions, "perform", around(Actions.perform, ""))
    _replace(Actions, "undo", around(Actions.undo, "-undo"))
    _replace(CommandHandler, "handle", handled)


def arm_broker(arms: Arms) -> None:
    """Wrap every operation of the broker that is served."""
    from brokers.sdk.service import Broker, BrokerService
    from schemas.brokers import CONTRACTS, Change

    def around(method: Callable[..., Awaitable[Any]], kind: str) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def wrapped(request: Any, *rest: Any) -> Any:
            step = _step(request.id, request.operation) if isinstance(request, Change) else None
            if step is None:
                return await method(request, *rest)
            label = f"{request.operation}/{step}/{kind}"
            arms.come_by(f"{label}/before")
            result = await method(request, *rest)
            arms.come_by(f"{label}/after")
            return result

        return wrapped

    serve = BrokerService.__init__

    @functools.wraps(serve)
    def served(self: BrokerService, broker: Broker, *rest: Any) -> None:
        kind = broker.settings.kind
        for operation in CONTRACTS[kind]:
            method = getattr(broker, operation, None)
            if method is not None:
                _replace(broker, operation, around(method, kind))
        serve(self, broker, *rest)

    _replace(BrokerService, "__init__", served)


def arm_hub(arms: Arms) -> None:
    """Wrap what the hub stores of its operations, and what it sends to sites."""
    from bus.events import EventStore
    from hub.adapters.outbound import BusOutbound
    from schemas import events as ev

    command, append = BusOutbound.command, EventStore.append

    @functools.wraps(command)
    async def sent(self: BusOutbound, subject: str, envelope: Any) -> None:
        step = _step(envelope.id, envelope.operationid or "")
        label = f"{envelope.operationid}/{step}/hub" if step else f"{envelope.id}/forward/hub"
        arms.come_by(f"{label}/before")
        await command(self, subject, envelope)
        arms.come_by(f"{label}/sent")

    def labels(events: Any, moment: str) -> list[str]:
        found = []
        for new in events:
            if isinstance(new.event, ev.OperationAccepted):
                found.append(f"{new.id}/accept/hub/{moment}")
            elif isinstance(new.event, ev.StepSucceeded) and moment == "before":
                found.append(f"{new.id}/{new.event.step}/hub/after")
        return found

    @functools.wraps(append)
    async def appended(self: EventStore, events: Any, **options: Any) -> Any:
        for label in labels(events, "before"):
            arms.come_by(label)
        stored = await append(self, events, **options)
        for label in labels(events, "after"):
            arms.come_by(label)
        return stored

    _replace(BusOutbound, "command", sent)
    _replace(EventStore, "append", appended)


def _replace(owner: object, name: str, by: object) -> None:
    setattr(owner, name, by)


ARMING = {"site_agent": arm_agent, "brokers": arm_broker, "hub": arm_hub}


def main() -> None:
    """Run the module that is named first as if it had been run alone. Does not return."""
    module = sys.argv[1]
    arms = Arms(Path.cwd())
    if module != "hub.webhooks":
        ARMING[module.partition(".")[0]](arms)
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
