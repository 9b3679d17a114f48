"""Services that can be found: NATS services API, ADR-32 (``$SRV.PING``, ``INFO``, ``STATS``).

Requests of one endpoint run at once, up to its limit; the rest waits its turn. Stopping takes no new requests and
answers those that came. What a handler raises reaches the caller as a problem, never as a traceback.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from bus import tracing
from bus.connection import CONTENT_HEADERS, Bus, Message, Subscription
from bus.discovery import EndpointInfo, ServiceInfo, discover
from bus.metrics import observe
from bus.scope import scope
from schemas import metrics
from schemas.envelope import SCHEMA_PREFIX, Envelope, decode, encode, timestamp, unwrap, wrap
from schemas.ids import new_id
from schemas.problems import Actor, CalqueError, Problem, invalid, permanent
from schemas.signals import ProblemReply
from schemas.sizes import largest_field
from schemas.subjects import SubjectError

__all__ = ["EndpointInfo", "Service", "ServiceInfo", "discover", "schema_id"]

logger = logging.getLogger(__name__)

Req = TypeVar("Req", bound=msgspec.Struct)
Rep = TypeVar("Rep", bound=msgspec.Struct)

NAME = re.compile(r"[A-Za-z0-9_-]+")
VERSION = re.compile(r"\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?")
ERROR_CODES = {"invalid": "400", "forbidden": "403", "not_found": "404", "conflict": "409"}
STOP_SECONDS = 30.0
MAX_HEADER_CHARACTERS = 500


class EndpointStats(msgspec.Struct, kw_only=True):
    """Numbers of one endpoint as ``$SRV.STATS`` shows them; times in nanoseconds."""

    name: str
    subject: str
    queue_group: str = ""
    num_requests: int = 0
    num_errors: int = 0
    last_error: str = ""
    processing_time: int = 0
    average_processing_time: int = 0


class _Endpoint:
    def __init__(
        self,
        *,
        name: str,
        subject: str,
        request_type: type[msgspec.Struct],
        reply_type: type[msgspec.Struct],
        handler: Callable[[Any, Envelope, str], Awaitable[msgspec.Struct]],
        concurrency: int,
        queue: str | None,
    ) -> None:
        self.request_type = request_type
        self.reply_type = reply_type
        self.handler = handler
        self.slots = asyncio.Semaphore(concurrency)
        self.queue = queue
        self.method = name.partition("-")[0]
        self.stats = EndpointStats(name=name, subject=subject, queue_group=queue or "")

    def info(self) -> dict[str, Any]:
        return {
            "name": self.stats.name,
            "subject": self.stats.subject,
            "queue_group": self.queue or "",
            "metadata": {
                "calque.request": schema_id(self.request_type),
                "calque.reply": schema_id(self.reply_type),
            },
        }


class Service:
    """One running service. ``source`` is what its replies carry as their source."""

    def __init__(
        self,
        bus: Bus,
        *,
        name: str,
        version: str,
        description: str,
        source: str,
        metadata: Mapping[str, str] | None = None,
        queue: str | None = "q",
    ) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't name a service: use A-Z, a-z, 0-9, '-' and '_'")
        if not VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is not a semantic version")
        self.id = new_id()
        self._bus = bus
        self._name = name
        self._version = version
        self._description = description
        self._source = source
        self._metadata = dict(metadata or {})
        self._queue = queue
        self._endpoints: list[_Endpoint] = []
        self._subscriptions: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()
        self._started = ""

    def endpoint(
        self,
        name: str,
        subject: str,
        request_type: type[Req],
        reply_type: type[Rep],
        handler: Callable[[Req, Envelope], Awaitable[Rep]],
        *,
        concurrency: int = 16,
    ) -> None:
        """Answer requests on ``subject`` with ``handler``, at most ``concurrency`` at once. Before :meth:`start`."""

        async def without_subject(request: Req, envelope: Envelope, _subject: str) -> Rep:
            return await handler(request, envelope)

        self.addressed(name, subject, request_type, reply_type, without_subject, concurrency=concurrency)

    def addressed(
        self,
        name: str,
        subject: str,
        request_type: type[Req],
        reply_type: type[Rep],
        handler: Callable[[Req, Envelope, str], Awaitable[Rep]],
        *,
        concurrency: int = 16,
    ) -> None:
        """Like :meth:`endpoint`, for a ``subject`` with wildcards: ``handler`` is told which it was."""
        if self._started:
            raise RuntimeError("endpoints are added before the service starts")
        self._endpoints.append(
            _Endpoint(
                name=name,
                subject=subject,
                request_type=request_type,
                reply_type=reply_type,
                handler=handler,
                concurrency=concurrency,
                queue=self._queue,
            )
        )

    async def start(self) -> None:
        """Take requests, then let itself be found."""
        self._started = timestamp(datetime.now(UTC))
        for endpoint in self._endpoints:
            self._subscriptions.append(
                await self._bus.subscribe(endpoint.stats.subject, self._taker(endpoint), queue=endpoint.queue)
            )
        for verb, answer in (("PING", self.ping), ("INFO", self.info), ("STATS", self.stats)):
            for subject in (
                f"$SRV.{verb}",
                f"$SRV.{verb}.{self._name}",
                f"$SRV.{verb}.{self._name}.{self.id}",
            ):
                self._subscriptions.append(await self._bus.subscribe(subject, self._describer(answer)))

    async def stop(self, *, grace_seconds: float = STOP_SECONDS) -> None:
        """Take no new requests, answer those that came; after ``grace_seconds`` the rest is cancelled."""
        subscriptions, self._subscriptions = self._subscriptions, []
        # What can be found is found no more, before requests are refused.
        await asyncio.gather(*(subscription.stop() for subscription in reversed(subscriptions)))
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace_seconds)
            for task in late:
                task.cancel()
            if late:
                logger.warning("%s: cancelled %d requests that did not end in time", self._name, len(late))
                await asyncio.wait(late)

    # --- description

    def ping(self) -> dict[str, Any]:
        """The answer to ``$SRV.PING``."""
        return {"type": "io.nats.micro.v1.ping_response", **self._identity()}

    def info(self) -> dict[str, Any]:
        """The answer to ``$SRV.INFO``."""
        return {
            "type": "io.nats.micro.v1.info_response",
            **self._identity(),
            "description": self._description,
            "endpoints": [endpoint.info() for endpoint in self._endpoints],
        }

    def stats(self) -> dict[str, Any]:
        """The answer to ``$SRV.STATS``."""
        return {
            "type": "io.nats.micro.v1.stats_response",
            **self._identity(),
            "started": self._started,
            "endpoints": [msgspec.to_builtins(endpoint.stats) for endpoint in self._endpoints],
        }

    def _identity(self) -> dict[str, Any]:
        return {"name": self._name, "id": self.id, "version": self._version, "metadata": self._metadata}

    def _describer(self, answer: Callable[[], dict[str, Any]]) -> Callable[[Message], Awaitable[None]]:
        async def describe(message: Message) -> None:
            if message.reply:
                await self._bus.send(message.reply, msgspec.json.encode(answer()))

        return describe

    # --- requests

    def _taker(self, endpoint: _Endpoint) -> Callable[[Message], Awaitable[None]]:
        async def take(message: Message) -> None:
            await endpoint.slots.acquire()  # waiting here leaves what follows in the subscription's own queue
            task = asyncio.create_task(self._serve(endpoint, message), name=f"{self._name}:{endpoint.stats.name}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(lambda _: endpoint.slots.release())

        return take

    async def _serve(self, endpoint: _Endpoint, message: Message) -> None:
        began = time.monotonic_ns()
        correlation: str | None = None
        operation: str | None = None
        try:
            envelope = decode(message.payload)
            correlation, operation = envelope.id, envelope.operationid
            data = _request_of(envelope, endpoint.request_type)
            reply: msgspec.Struct
            with scope(operation=operation, correlation=envelope.correlationid), self._span(endpoint, envelope):
                reply = await endpoint.handler(data, envelope, message.subject)
        except CalqueError as error:
            reply = ProblemReply(problem=error.problem)
        except SubjectError as error:  # an id or a name in the request that nothing can have
            reply = ProblemReply(problem=invalid("message", str(error), "use ids and names as the schemas say"))
        except asyncio.CancelledError:
            problem = Problem(
                code="stopped",
                message=f"{self._name} stopped before it had answered",
                actor=Actor.ENVIRONMENT,
                retry_after_seconds=1.0,
            )
            await self._answer(endpoint, message, ProblemReply(problem=problem), correlation, operation)
            raise
        except Exception:
            logger.exception("%s: endpoint %s failed", self._name, endpoint.stats.name)
            reply = ProblemReply(
                problem=permanent(
                    "internal", f"{self._name} failed in {endpoint.stats.name}", remedy="its log says why"
                )
            )
        stats = endpoint.stats
        took = time.monotonic_ns() - began
        stats.num_requests += 1
        stats.processing_time += took
        failed = reply.problem.code if isinstance(reply, ProblemReply) else ""
        observe(metrics.REQUESTS, took / 1e9, self._name, stats.name, failed)
        stats.average_processing_time = stats.processing_time // stats.num_requests
        await self._answer(endpoint, message, reply, correlation, operation)

    def _span(self, endpoint: _Endpoint, envelope: Envelope) -> AbstractContextManager[object]:
        """What is asked as a part of a trace is one of it; what is asked beside all traces is none."""
        if envelope.traceparent is None:
            return nullcontext()
        about = {"rpc.service": self._name, "rpc.method": endpoint.stats.name}
        if envelope.operationid:
            about["calque.operation.id"] = envelope.operationid
        name = f"{self._name} {endpoint.method}"
        return tracing.span(name, kind="server", parent=envelope.traceparent, attributes=about)

    async def _answer(
        self,
        endpoint: _Endpoint,
        message: Message,
        reply: msgspec.Struct,
        correlation: str | None,
        operation: str | None,
    ) -> None:
        headers = dict(CONTENT_HEADERS)
        if isinstance(reply, ProblemReply):
            endpoint.stats.num_errors += 1
            endpoint.stats.last_error = f"{reply.problem.code}: {reply.problem.sentence()}"
            headers["Nats-Service-Error"] = _header_value(reply.problem.sentence())
            headers["Nats-Service-Error-Code"] = error_code(reply.problem)
        if not message.reply:
            return
        try:
            envelope = wrap(
                reply,
                id=new_id(),
                source=self._source,
                time=timestamp(datetime.now(UTC)),
                causationid=correlation,
                operationid=operation,
            )
            await self._bus.send(message.reply, encode(envelope), headers=headers)
        except CalqueError as error:
            logger.warning("%s: the answer of %s was not sent: %s", self._name, endpoint.stats.name, error)
            if error.problem.code == "invalid" and not isinstance(reply, ProblemReply):
                field, size = largest_field(reply)
                text = f"{error.problem.message}; {field or 'it'} alone has {size} bytes"
                too_big = ProblemReply(
                    problem=permanent("reply_too_large", text, field=field or None, remedy="ask for less at a time")
                )
                await self._answer(endpoint, message, too_big, correlation, operation)
        except Exception:
            logger.exception("%s: the answer of %s could not be made", self._name, endpoint.stats.name)
            if not isinstance(reply, ProblemReply):
                unmade = ProblemReply(problem=permanent("internal", f"{self._name} could not make its answer"))
                await self._answer(endpoint, message, unmade, correlation, operation)


def _request_of(envelope: Envelope, expected: type[Req]) -> Req:
    kind = getattr(expected, "TYPE", None)
    if kind is not None and envelope.type != kind:
        raise CalqueError(invalid("type", f"{envelope.type} is not what this endpoint takes", f"send {kind}"))
    return unwrap(envelope, expected)


def _header_value(text: str) -> str:
    """One line and short: what a caller sent may stand in it, and headers count towards the biggest message."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_HEADER_CHARACTERS else f"{line[:MAX_HEADER_CHARACTERS]}..."


def schema_id(data: type) -> str:
    """The id of the published schema of a message type."""
    return SCHEMA_PREFIX + str(getattr(data, "TYPE", data.__name__)).removeprefix("calque.")


def error_code(problem: Problem) -> str:
    """The number in ``Nats-Service-Error-Code``, in the manner of HTTP."""
    if problem.actor is Actor.ENVIRONMENT:
        return "503"
    if problem.actor is Actor.BROKER:
        return "500"
    return ERROR_CODES.get(problem.code, "422")
