"""A hub by script: stores commands in a stream, hands them to a test's function, answers queries from a table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bus.connection import CONTENT_HEADERS, Bus, Message
from bus.jetstream import JetStream
from bus.service import Service
from bus.subscriptions import Places
from hub.adapters.subscriptions import Subscriptions
from schemas import queries
from schemas.commands import Answer
from schemas.envelope import Envelope, decode, encode, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, not_found
from schemas.subjects import acts

NOW = "2026-01-01T00:00:00.000000Z"
Decide = Callable[[Envelope], Awaitable[Answer | None]]
Reply = Callable[[object], msgspec.Struct]


class ScriptedHub:
    """``decide`` is asked once per stored command; ``None`` is silence. ``replies`` answers queries by their name."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.received: list[tuple[str, Envelope]] = []
        self.answers: dict[str, Answer] = {}
        self.replies: dict[str, Reply] = {}
        self.decide: Decide = self._accept
        self._jetstream = JetStream(bus)

    async def start(self) -> None:
        for name, subjects in (("JOBS", ["calque.cmd.hub.>"]), ("EVENTS", ["calque.evt.>"])):
            await self._jetstream.call(
                f"STREAM.CREATE.{name}", {"name": name, "subjects": subjects, "storage": "memory", "allow_direct": True}
            )
        await self.bus.subscribe("calque.cmd.hub.>", self._take)
        self.service = Service(self.bus, name="hub", version="0.0.1", description="by script", source="hub")
        for what, contract in queries.QUERIES.items():
            self.service.endpoint(what, f"calque.qry.{what}", contract.query, contract.reply, self._answerer(what))
        places = Subscriptions(Places(self.bus))
        for what, contract in queries.SUBSCRIPTION_ACTS.items():
            self.service.addressed(what, acts(what), contract.query, contract.reply, getattr(places, what))
        await self.service.start()

    async def stop(self) -> None:
        await self.service.stop()
        for name in ("JOBS", "EVENTS"):
            await self._jetstream.call(f"STREAM.DELETE.{name}")

    async def answer(self, to: Envelope, answer: Answer) -> None:
        """Send an answer to the command's inbox, and keep it."""
        self.answers[answer.command] = answer
        assert to.replyto is not None
        await self.bus.publish(to.replyto, wrap(answer, id=new_id(), source="hub", time=NOW))

    async def record(self, subject: str, data: msgspec.Struct, *, source: str) -> None:
        """Store an event."""
        envelope = wrap(data, id=new_id(), source=source, time=NOW)
        await self._jetstream.publish(
            subject, encode(envelope), headers={**CONTENT_HEADERS, "Nats-Msg-Id": envelope.id}
        )

    async def say(self, subject: str, data: msgspec.Struct) -> None:
        """Publish a signal."""
        await self.bus.publish(subject, wrap(data, id=new_id(), source="north", time=NOW))

    async def _accept(self, envelope: Envelope) -> Answer | None:
        return Answer(command=envelope.id, state="accepted", operation=envelope.id)

    async def _take(self, message: Message) -> None:
        envelope = decode(message.payload)
        self.received.append((message.subject, envelope))
        answer = await self.decide(envelope)
        if answer is not None:
            await self.answer(envelope, answer)

    def _answerer(self, what: str) -> Callable[[queries.Query, Envelope], Awaitable[Any]]:
        async def answer(question: queries.Query, envelope: Envelope) -> Any:
            if what in self.replies:
                return self.replies[what](question)
            if isinstance(question, queries.CommandQuery) and question.id in self.answers:
                return self.answers[question.id]
            raise CalqueError(not_found(what, "there is nothing"))

        return answer


def app(name: str, *, site: str = "north", id: str | None = None, **more: object) -> queries.AppView:
    """An app that runs."""
    view = queries.AppView(
        id=id or new_id(),
        name=name,
        site=site,
        team="default",
        template="hackathon@1",
        state="running",
        status="UP",
        url="http://127.0.0.1:1",
    )
    return msgspec.structs.replace(view, **more)


def operation(id: str, state: str, **more: object) -> queries.OperationView:
    """An operation in ``state``."""
    view = queries.OperationView(
        id=id, kind="deploy", site="north", state="running", name="ideas", target="t", principal="tester"
    )
    return msgspec.structs.replace(view, state=state, **more)
