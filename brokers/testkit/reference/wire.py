"""The reference brokers on the bus: discovery, envelopes, problems; and how each of these can be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from bus.connection import Bus, Message, Subscription
from bus.service import error_code, schema_id
from schemas.brokers import CONTRACTS, SERVICE_VERSION, Outcome, Reply, Request
from schemas.envelope import CONTENT_TYPE, Envelope, convert, decode, encode, timestamp, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, invalid, permanent
from schemas.signals import ProblemReply
from schemas.subjects import broker_request
from schemas.values import BrokerKind

logger = logging.getLogger(__name__)

BIG_BYTES = 100_000
KNOWN_ATTRIBUTES = frozenset(Envelope.__struct_fields__)

Handler = Callable[[Any], Awaitable[Reply]]
Handling = Callable[[Message], Coroutine[Any, Any, None]]


class Unanswered(Exception):
    """The request gets no answer: a defect."""


class WireBroker:
    """``disk`` and ``directory`` are what a restart keeps; ``defects`` the ids of the checks that must fail."""

    kind: ClassVar[BrokerKind]

    def __init__(
        self,
        bus: Bus,
        *,
        site: str,
        name: str,
        directory: Path,
        disk: dict[str, Any],
        defects: Iterable[str] = (),
    ) -> None:
        self.bus = bus
        self.site = site
        self.name = name
        self.directory = directory
        self.disk = disk
        self.defects = frozenset(defects)
        self.restarted = bool(disk)
        self.id = new_id()
        self._subscriptions: list[Subscription] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._requests: dict[str, int] = {}

    def broken(self, check: str) -> bool:
        """Whether this is to be wrong."""
        return check in self.defects

    async def open(self) -> None:
        """Get ready."""

    async def close(self) -> None:
        """Let go of what a restart would take."""

    def handler(self, operation: str) -> Handler:
        """What answers an operation."""
        raise NotImplementedError

    async def start(self) -> None:
        """Answer requests."""
        await self.open()
        for operation in CONTRACTS[self.kind]:
            await self._listen(self.subject(operation), self._taker(operation))
        if self.broken("any.restart.found") and self.restarted:
            await self._heard()
            return
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for place in ("", f".{self.service_name}", f".{self.service_name}.{self.id}"):
                await self._listen(f"$SRV.{verb}{place}", self._describer(verb, answer))
        await self._heard()

    async def _heard(self) -> None:
        """Return when the server knows of all subscriptions: it takes them in order."""
        subject = self.bus.new_inbox()
        last = await self.bus.subscribe(subject, _nothing)
        await last.stop()

    async def stop(self) -> None:
        """Answer no more."""
        for subscription in self._subscriptions:
            await subscription.drop()
        self._subscriptions.clear()
        for task in self._serving:
            task.cancel()
        await self.close()

    def subject(self, operation: str) -> str:
        return broker_request(site=self.site, kind=self.kind, broker=self.name, operation=operation)

    async def _listen(self, subject: str, handle: Handling) -> None:
        def take(message: Message) -> None:
            task = asyncio.create_task(handle(message))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

        self._subscriptions.append(await self.bus.listen(subject, take))

    # --- discovery

    @property
    def service_name(self) -> str:
        return f"reference-{self.kind}-{self.name}"

    def _identity(self, kind: str) -> dict[str, Any]:
        metadata = {"calque.kind": self.kind, "calque.name": self.name, "calque.site": self.site}
        if self.broken("any.found.metadata"):
            del metadata["calque.site"]
        return {
            "type": f"io.nats.micro.v1.{kind}_response",
            "name": self.service_name,
            "id": self.id,
            "version": SERVICE_VERSION,
            "metadata": metadata,
        }

    def _ping(self) -> dict[str, Any]:
        return self._identity("ping")

    def _info(self) -> dict[str, Any]:
        operations = dict(CONTRACTS[self.kind])
        if self.broken("any.found.endpoints"):
            del operations["cancel"]
        endpoints = []
        for operation, contract in operations.items():
            reply = Outcome if contract.long and not self.broken("any.found.schemas") else contract.result
            schemas = {"calque.request": schema_id(contract.request), "calque.reply": schema_id(reply)}
            endpoints.append({"name": operation, "subject": self.subject(operation), "metadata": schemas})
        return {**self._identity("info"), "description": "a reference", "endpoints": endpoints}

    def _stats(self) -> dict[str, Any]:
        counted = not self.broken("any.found.stats")
        endpoints = [
            {
                "name": operation,
                "subject": self.subject(operation),
                "num_requests": self._requests.get(operation, 0) if counted else 0,
            }
            for operation in CONTRACTS[self.kind]
        ]
        return {**self._identity("stats"), "endpoints": endpoints}

    def _describer(self, verb: str, answer: Callable[[], dict[str, Any]]) -> Handling:
        async def describe(message: Message) -> None:
            if message.reply and not (verb == "PING" and self.broken("any.found.ping")):
                await self.bus.send(message.reply, msgspec.json.encode(answer()))

        return describe

    # --- requests

    def _taker(self, operation: str) -> Handling:
        async def take(message: Message) -> None:
            await self._serve(operation, message)

        return take

    async def _serve(self, operation: str, message: Message) -> None:
        self._requests[operation] = self._requests.get(operation, 0) + 1
        cause: str | None = None
        reply: Reply | ProblemReply
        try:
            with contextlib.suppress(CalqueError):
                cause = decode(message.payload).id
            request = self._read(operation, message.payload)
            reply = await self.handler(operation)(request)
        except Unanswered:
            return
        except CalqueError as error:
            reply = ProblemReply(problem=error.problem)
        except Exception as error:
            logger.exception("%s failed", operation)
            reply = ProblemReply(problem=permanent("internal", type(error).__name__))
        if message.reply:
            await self._answer(operation, message.reply, reply, cause)

    def _read(self, operation: str, payload: bytes) -> Request:
        expected = CONTRACTS[self.kind][operation].request
        if (not payload and self.broken("any.input.empty")) or (
            len(payload) > BIG_BYTES and self.broken("any.input.huge")
        ):
            raise Unanswered
        try:
            raw = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if payload and self.broken("any.input.not_json"):
                raise CalqueError(permanent("internal", "something went wrong")) from None
            raw = None
        except RecursionError:
            if self.broken("any.input.deep"):
                raise Unanswered from None
            raw = None
        if isinstance(raw, dict):
            payload = self._excuse(raw, expected)
        envelope = decode(payload)
        if envelope.type != expected.TYPE and not self.broken("any.input.other_message"):
            raise CalqueError(invalid("type", f"{envelope.type} is not what this endpoint takes"))
        try:
            return convert(envelope.data, expected)
        except CalqueError as error:
            if "missing" in error.problem.message and self.broken("any.input.missing_field"):
                raise CalqueError(permanent("internal", "something went wrong")) from None
            if "got `int`" in error.problem.message and self.broken("any.input.wrong_type"):
                raise CalqueError(invalid("data", "this is wrong")) from None
            if self.broken("any.input.deep") and b"[[[" in bytes(envelope.data):
                raise Unanswered from None
            raise

    def _excuse(self, raw: dict[str, Any], expected: type[Request]) -> bytes:
        """The message, with what a defect overlooks put right."""
        if "specversion" not in raw and self.broken("any.input.not_an_envelope"):
            raw = {"specversion": "1.0", "id": "1", "type": expected.TYPE, "source": "x", "time": "x", "data": raw}
        if self.broken("any.input.specversion"):
            raw["specversion"] = "1.0"
        if self.broken("any.input.extensions") and set(raw) - KNOWN_ATTRIBUTES:
            raise CalqueError(invalid("message", "an attribute is not known"))
        if self.broken("any.input.unknown_field") and isinstance(raw.get("data"), dict):
            raw["data"] = {name: value for name, value in raw["data"].items() if name in expected.__struct_fields__}
        return msgspec.json.encode(raw)

    async def _answer(self, operation: str, to: str, reply: Reply | ProblemReply, cause: str | None) -> None:
        headers = {"content-type": CONTENT_TYPE}
        if isinstance(reply, ProblemReply) and not self.broken("any.problem.headers"):
            said = reply.problem.sentence()
            line = " ".join(said.split())[:500]
            if line != said and self.broken("any.input.line_breaks"):
                return
            headers["Nats-Service-Error"] = line
            headers["Nats-Service-Error-Code"] = error_code(reply.problem)
        causation = None if self.broken("any.reply.cause") else cause
        now = timestamp(datetime.now(UTC))
        envelope = wrap(reply, id=new_id(), source=self.service_name, time=now, causationid=causation)
        if self.broken("any.reply.envelope"):
            envelope = msgspec.structs.replace(envelope, dataschema=None)
        if operation == "info" and self.broken("any.info.types"):
            raw = {**msgspec.json.decode(envelope.data), "colour": "red"}
            envelope = msgspec.structs.replace(envelope, data=msgspec.Raw(msgspec.json.encode(raw)))
        await self.bus.send(to, encode(envelope), headers=headers)


async def _nothing(_message: Message) -> None:
    """Nobody sends here."""
