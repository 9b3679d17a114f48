"""Somebody who knows the published schemas and a NATS client, and nothing else of Calque."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import nats
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

Document = dict[str, Any]
Envelope = dict[str, Any]

HEADERS = {"content-type": "application/cloudevents+json"}
ANSWER_SECONDS = 60.0
QUERY_SECONDS = 60.0


class Schemas:
    """The published schemas: by message type, the subject it is sent to and what its data looks like."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        index = json.loads((directory / "index.json").read_text())
        self.types: dict[str, Document] = index["types"]
        self._envelope = _validator(directory / index["envelope"])
        self._data: dict[str, Validator] = {}

    def subject(self, kind: str, **parts: str) -> str:
        """The subject of a message type, its parts filled in."""
        return str(self.types[kind]["subject"]).format(**parts)

    def check(self, envelope: Envelope) -> None:
        """Raises ``ValidationError`` of jsonschema unless the envelope and its data are as published."""
        self._envelope.validate(envelope)
        kind = envelope["type"]
        if kind not in self._data:
            self._data[kind] = _validator(self._directory / self.types[kind]["schema"])
        self._data[kind].validate(envelope["data"])


def _validator(file: Path) -> Validator:
    schema = json.loads(file.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7)."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=number))


class Stranger:
    """A connection. Every message that comes or goes is checked against the schemas."""

    def __init__(self, connection: NatsClient, *, principal: str, schemas: Schemas) -> None:
        self._connection = connection
        self._principal = principal
        self.schemas = schemas

    @classmethod
    async def connect(cls, context: Document, schemas: Schemas) -> Self:
        """Connect as the client's context file says."""
        connection = await nats.connect(
            context["servers"],
            nkeys_seed=context["nkey_seed_file"],
            inbox_prefix=f"_INBOX.{context['principal']}".encode(),
        )
        return cls(connection, principal=context["principal"], schemas=schemas)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    def envelope(self, kind: str, data: Document, *, id: str | None = None, **extensions: str) -> Envelope:
        """A CloudEvents envelope of ours."""
        now = datetime.now(UTC)
        return {
            "specversion": "1.0",
            "id": id or uuid7(),
            "type": kind,
            "source": self._principal,
            "time": now.isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": data,
            **extensions,
        }

    async def command(
        self, kind: str, target: str, data: Document, *, id: str | None = None, times: int = 1, unchecked: bool = False
    ) -> list[Envelope]:
        """Send a command under one id ``times`` times; the answers to come by then, none of them ``queued``.

        Each time it is stored anew: JetStream's own search for duplicates is evaded, as a day would evade it.
        ``unchecked`` sends data that the schema does not allow.
        """
        inbox = self._connection.new_inbox()
        answers = await self._connection.subscribe(inbox)
        expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
        envelope = self.envelope(kind, data, id=id, replyto=inbox, expirytime=expires)
        if not unchecked:
            self.schemas.check(envelope)
        subject = self.schemas.subject(kind, principal=self._principal, id=target)
        for _ in range(times):
            headers = {**HEADERS, "Nats-Msg-Id": envelope["id"] if times == 1 else uuid7()}
            stored = await self._connection.request(
                subject, json.dumps(envelope).encode(), timeout=QUERY_SECONDS, headers=headers
            )
            assert "error" not in json.loads(stored.data), stored.data
        found: list[Envelope] = []
        while not found or answers.pending_msgs:
            answer = self._received(await answers.next_msg(timeout=ANSWER_SECONDS))
            if answer["data"]["state"] != "queued":
                found.append(answer)
        await answers.unsubscribe()
        return found

    async def ask(self, kind: str, data: Document) -> Document:
        """The data of the reply to a query."""
        envelope = self.envelope(kind, data)
        self.schemas.check(envelope)
        reply = await self._connection.request(
            self.schemas.subject(kind), json.dumps(envelope).encode(), timeout=QUERY_SECONDS, headers=HEADERS
        )
        answer: Document = self._received(reply)["data"]
        return answer

    async def events(self, *, filter: str, after: int = 0, seconds: float = 60.0) -> AsyncIterator[Envelope]:
        """Events of the record whose subject matches, from one sequence on, as they come; at most for ``seconds``."""
        record = self._connection.jetstream(prefix="JSHUB.API")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                stored = await record.get_msg("EVENTS", after + 1, subject=filter, direct=True, next=True)
            except NotFoundError:
                await asyncio.sleep(0.05)
                continue
            after = stored.seq or 0
            yield self._read(stored.data or b"")
        raise AssertionError(f"no more events of {filter} within {seconds:.0f} s")

    async def until_ended(self, operation: str) -> list[str]:
        """The names of all events of an operation, up to the one that ends it."""
        filter = self.schemas.subject("calque.event.operation.succeeded.v1", writer="*", id=operation)
        names = []
        async for event in self.events(filter=filter.rpartition(".")[0] + ".>"):
            names.append(str(event["type"]).split(".")[-2])
            if names[-1] in ("succeeded", "failed", "cancelled"):
                break
        return names

    def _received(self, message: Msg) -> Envelope:
        return self._read(message.data)

    def _read(self, payload: bytes) -> Envelope:
        envelope: Envelope = json.loads(payload)
        self.schemas.check(envelope)
        return envelope
