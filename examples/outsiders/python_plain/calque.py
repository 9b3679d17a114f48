"""All that it takes to speak with a hub: a NATS client and JSON. Nothing of Calque is imported.

Messages are CloudEvents 1.0; their data and subjects are those of docs/messages.md and schemas/generated.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client as Connection

Document = dict[str, Any]
HEADERS = {"content-type": "application/cloudevents+json"}
JETSTREAM = "JSHUB.API"
ANSWER_SECONDS = 5.0


class Refused(Exception):
    """The hub said no: the problem has `code`, `message` and perhaps `field` and `remedy`."""


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): ids that sort by time."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))


class Hub:
    """A connection with the credentials that `calque principal add` wrote."""

    def __init__(self, connection: Connection, *, principal: str, inbox_prefix: str) -> None:
        self.connection = connection
        self.principal = principal
        self.inbox_prefix = inbox_prefix

    @classmethod
    async def connect(cls, credentials: Path) -> Hub:
        known = json.loads(credentials.read_text())
        connection = await nats.connect(
            known["servers"],
            nkeys_seed=str(credentials.parent / known["nkey_seed_file"]),
            inbox_prefix=known["inbox_prefix"].encode(),
        )
        return cls(connection, principal=known["principal"], inbox_prefix=known["inbox_prefix"])

    def envelope(self, kind: str, data: Document, *, id: str, **more: str) -> bytes:
        """A message of type `calque.<kind>.v1`."""
        return json.dumps(
            {
                "specversion": "1.0",
                "id": id,
                "type": f"calque.{kind}.v1",
                "source": self.principal,
                "time": datetime.now(UTC).isoformat(),
                "datacontenttype": "application/json",
                "data": data,
                **more,
            }
        ).encode()

    async def ask(self, subject: str, kind: str, data: Document) -> Document:
        """The data of the reply to a question or an act. Raises `Refused`."""
        message = self.envelope(kind, data, id=uuid7())
        reply = await self.connection.request(subject, message, timeout=ANSWER_SECONDS, headers=HEADERS)
        answer = json.loads(reply.data)
        if answer["type"] == "calque.problem.v1":
            raise Refused(answer["data"]["problem"])
        found: Document = answer["data"]
        return found

    async def command(self, aggregate: str, verb: str, target: str, data: Document, *, id: str) -> Document:
        """The answer to a command, `accepted` or `queued`. Raises `Refused`.

        Sent again with the same id, however often, it has one effect and the same answer.
        """
        inbox = f"{self.inbox_prefix}.{uuid7()}"
        answers = await self.connection.subscribe(inbox)
        expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        kind = f"command.hub.{aggregate}.{verb}"
        message = self.envelope(kind, data, id=id, correlationid=id, replyto=inbox, expirytime=expires)
        subject = f"calque.cmd.hub.{self.principal}.{aggregate}.{target}.{verb}"
        try:
            for _ in range(5):
                headers = {**HEADERS, "Nats-Msg-Id": id}
                stored = await self.connection.request(subject, message, timeout=ANSWER_SECONDS, headers=headers)
                if error := json.loads(stored.data).get("error"):
                    raise Refused(error)
                try:
                    answer: Document = json.loads((await answers.next_msg(timeout=ANSWER_SECONDS)).data)["data"]
                except nats.errors.TimeoutError:
                    continue  # stored, and no hub has answered yet: send it again
                if answer["state"] == "rejected":
                    raise Refused(answer["problem"])
                return answer
        finally:
            await answers.unsubscribe()
        raise TimeoutError(f"no hub answered; the command {id} is stored and will be carried out")
