"""A broker on the bus: every operation of its kind is an endpoint of one ADR-32 service.

A broker is a class with one method per operation that it offers, named as in ``schemas.brokers.CONTRACTS``::

    async def bind(self, request: Bind) -> Bound                                      # short
    async def provision(self, request: Provision, reporter: Reporter) -> Provisioned  # long

Operations without a method answer the permanent problem ``unsupported``; ``status`` and ``cancel`` are the engine's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from brokers.sdk.errors import problem_of, unsupported
from brokers.sdk.operations import Key, OperationEngine
from brokers.sdk.outcomes import OutcomeStore
from brokers.sdk.progress import Reporter
from brokers.sdk.settings import BrokerSettings
from bus.connection import Bus
from bus.metrics import Sample, bus_samples, sample
from bus.service import Service
from schemas import metrics
from schemas.brokers import (
    CONTRACTS,
    SERVICE_VERSION,
    BytesDone,
    CancelRequest,
    Change,
    Outcome,
    Reply,
    Request,
    StatusRequest,
)
from schemas.envelope import Envelope, timestamp, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, Problem
from schemas.signals import Progress
from schemas.subjects import broker_request, progress

logger = logging.getLogger(__name__)

Handler = Callable[[Any, Envelope], Awaitable[Reply]]

# Which field of a request names the resource that its operation needs for itself.
# Discarding a copy and letting a service go on must not wait for what they are there to end.
_RESOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "dsb": {
        **dict.fromkeys(("provision", "deprovision", "bind", "unbind"), ("service_id",)),
        **dict.fromkeys(("stage_copy", "prepare_copy", "copy"), ("copy",)),
    },
    "psb": dict.fromkeys(("deploy", "scale", "remove", "run_hook"), ("instance", "service")),
    "crb": {
        **dict.fromkeys(("open_write", "commit", "abort", "delete", "transfer"), ("copy",)),
        "collect": (),
    },
    "arb": {},
}


class Broker:
    """The base of all brokers. ``remembered`` names the short changes whose replies are kept by id, because
    running them again would change something; their replies hold no secrets."""

    description: ClassVar[str] = "a Calque broker"
    remembered: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings

    async def start(self) -> None:
        """Get ready; requests come after this. Must not wait for the broker's technology, which may come later."""

    async def stop(self) -> None:
        """Let go of everything; no request comes after this, and no work runs."""

    def explain(self, error: BaseException) -> Problem | None:  # noqa: ARG002 - for those who override it
        """The problem that an error of the broker's technology stands for; ``None`` for any other error."""
        return None

    def resource(self, operation: str, request: Request) -> str | None:
        """What an operation needs for itself: those with the same answer run one after another."""
        fields = _RESOURCES[self.settings.kind].get(operation)
        if fields is None:
            return None
        return "/".join((fields[0] if fields else operation, *(str(getattr(request, field)) for field in fields)))


class BrokerService:
    """Serves one broker on one bus connection."""

    def __init__(self, broker: Broker, bus: Bus) -> None:
        settings = broker.settings
        self._broker = broker
        self._bus = bus
        self._name = f"calque-{settings.kind}-{settings.name}"
        self._telling: set[asyncio.Task[None]] = set()
        self._engine = OperationEngine(OutcomeStore(settings.state_dir / "operations"), explain=broker.explain)
        self._service = Service(
            bus,
            name=self._name,
            version=SERVICE_VERSION,
            description=broker.description,
            source=self._name,
            metadata={"calque.kind": settings.kind, "calque.name": settings.name, "calque.site": settings.site},
        )
        for operation, contract in CONTRACTS[settings.kind].items():
            subject = broker_request(site=settings.site, kind=settings.kind, broker=settings.name, operation=operation)
            handler = self._handler(operation, long=contract.long, result=contract.result)
            reply = Outcome if contract.long else contract.result
            self._service.endpoint(operation, subject, contract.request, reply, handler)

    async def start(self) -> None:
        """Get the broker ready, then answer requests."""
        await self._engine.open()
        await self._broker.start()
        await self._service.start()

    async def stop(self) -> None:
        """Take no more requests, stop what runs and wait for its clean-up. The same requests resume it later."""
        # the work goes first: requests that wait for it are answered "stopping" and the service drains quickly
        await self._engine.close()
        await self._service.stop()
        await self._broker.stop()
        for task in self._telling:
            task.cancel()

    async def collect(self) -> list[Sample]:
        """What metrics show of this broker."""
        return [*bus_samples(self._bus), sample(metrics.BROKER_RUNNING, self._engine.running)]

    def _handler(self, operation: str, *, long: bool, result: type[Reply]) -> Handler:
        if operation == "status":
            return self._status
        if operation == "cancel":
            return self._cancel
        method = getattr(self._broker, operation, None)
        if method is None:
            return self._unsupported(operation)
        if long:
            return self._long(operation, method)
        if operation in self._broker.remembered:
            return self._short(operation, method, remember=result)
        return self._short(operation, method, remember=None)

    def _unsupported(self, operation: str) -> Handler:
        async def refuse(_request: Request, _envelope: Envelope) -> Reply:
            raise unsupported(operation, broker=self._name)

        return refuse

    def _long(self, operation: str, method: Callable[[Any, Reporter], Awaitable[Reply]]) -> Handler:
        async def start(request: Change, _envelope: Envelope) -> Outcome:
            return await self._engine.start(
                Key(request.id, operation),
                lambda reporter: method(request, reporter),
                resource=self._broker.resource(operation, request),
                tell=lambda done: self._tell(operation, request, done),
            )

        return start

    def _short(
        self, operation: str, method: Callable[[Any], Awaitable[Reply]], *, remember: type[Reply] | None
    ) -> Handler:
        async def change(request: Request, _envelope: Envelope) -> Reply:
            if isinstance(request, Change):
                return await self._engine.once(
                    Key(request.id, operation),
                    lambda: method(request),
                    resource=self._broker.resource(operation, request),
                    remember=remember,
                )
            try:
                return await method(request)
            except Exception as error:
                raise CalqueError(problem_of(error, explain=self._broker.explain, doing=operation)) from error

        return change

    async def _status(self, request: StatusRequest, _envelope: Envelope) -> Outcome:
        return self._engine.status(request.id)

    async def _cancel(self, request: CancelRequest, _envelope: Envelope) -> Outcome:
        return await self._engine.cancel(request.id)

    def _tell(self, operation: str, request: Change, done: BytesDone) -> None:
        if request.operation:
            task = asyncio.create_task(self._publish(operation, request, done))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _publish(self, operation: str, request: Change, done: BytesDone) -> None:
        signal = Progress(
            operation=request.operation,
            step=_step(request.id, operation),
            part=_part(request),
            done=done.done,
            total=done.total,
            message=done.message,
        )
        envelope = wrap(signal, id=new_id(), source=self._name, time=_now(), operationid=request.operation)
        try:
            await self._bus.publish(progress(site=self._broker.settings.site, operation=request.operation), envelope)
        except Exception as error:  # nobody waits for progress, and the work must not fail for it
            logger.debug("progress of %s could not be told: %s", request.id, error)


def _step(id: str, operation: str) -> str:
    """The step in an effect's id ``<operation>/<step>/<attempt>``; another id's step is the broker operation."""
    parts = id.split("/")
    return "/".join(parts[1:-1]) if len(parts) > 2 else operation


def _part(request: Change) -> str:
    """The part as people know it where the request says so, else its key."""
    labels = getattr(request, "labels", None) or {}
    named = labels.get("data_service")
    return str(named or getattr(request, "copy", None) or getattr(request, "service_id", None) or "")


def _now() -> str:
    return timestamp(datetime.now(UTC))
