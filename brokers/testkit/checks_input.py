"""Wrong input: answered as a problem that names what is wrong, and nobody else suffers. For every kind."""

from __future__ import annotations

from typing import Any

import msgspec

from brokers.testkit.bench import Bench
from brokers.testkit.checks import check, holds
from brokers.testkit.conversation import Answer, envelope_of
from schemas.brokers import InfoRequest, StatusRequest
from schemas.envelope import encode
from schemas.ids import new_id
from schemas.problems import Actor

SPEC = "schemas/problems.py, invalid; schemas/base.py, Demand"
HUGE_BYTES = 600_000


def status_message(*, data: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """A status request, with other data or another envelope."""
    raw = msgspec.json.decode(encode(envelope_of(StatusRequest(id=new_id()))), type=dict[str, Any])
    if data is not None:
        raw["data"] = data
    return msgspec.json.encode({**raw, **changes})


async def refused(bench: Bench, payload: bytes, *, field: str = "") -> None:
    """The payload is answered as ``invalid``, the caller's fault, naming ``field``; and the broker goes on."""
    answer = await bench.talk.send("status", payload)
    sent = bench.talk.sent
    _judge(answer, field=field, sent=sent)
    await bench.info()


def _judge(answer: Answer, *, field: str, sent: str) -> None:
    problem = answer.problem
    holds(problem is not None, f"no problem, but {answer.payload[:200]!r}", sent=sent)
    assert problem is not None
    said = f"problem {problem.code}: {problem.sentence()}"
    holds(problem.code == "invalid", f"{said}; the code must be invalid", sent=sent)
    holds(problem.actor is Actor.CALLER, f"{said}; the caller must act, not {problem.actor}", sent=sent)
    if field:
        named = field in (problem.field or "") or field in problem.message
        holds(named, f"{said}; it does not name {field}", sent=sent)


@check("any.input.unknown_field", "A field that the request does not have is refused by its name.", spec=SPEC)
async def unknown_field(bench: Bench) -> None:
    await refused(bench, status_message(data={"id": new_id(), "colour": "red"}), field="colour")


@check("any.input.wrong_type", "A field of the wrong type is refused by its name.", spec=SPEC)
async def wrong_type(bench: Bench) -> None:
    await refused(bench, status_message(data={"id": 7}), field="id")


@check("any.input.missing_field", "A missing field is refused by its name.", spec=SPEC)
async def missing_field(bench: Bench) -> None:
    await refused(bench, status_message(data={}), field="id")


@check("any.input.empty", "An empty message is answered as a problem.", spec=SPEC)
async def empty(bench: Bench) -> None:
    await refused(bench, b"")


@check("any.input.not_json", "What is not JSON is answered as a problem.", spec=SPEC)
async def not_json(bench: Bench) -> None:
    await refused(bench, b"\xff\x00 {]")


@check("any.input.not_an_envelope", "JSON without an envelope is answered as a problem.", spec=SPEC)
async def not_an_envelope(bench: Bench) -> None:
    await refused(bench, msgspec.json.encode({"id": new_id()}))


@check("any.input.other_message", "A message of another type than the endpoint's is refused.", spec=SPEC)
async def other_message(bench: Bench) -> None:
    await refused(bench, status_message(type="calque.request.any.cancel.v1"), field="type")


@check("any.input.specversion", "Another version of CloudEvents is refused.", spec="CloudEvents 1.0.2, specversion")
async def specversion(bench: Bench) -> None:
    await refused(bench, status_message(specversion="0.3"), field="specversion")


@check("any.input.deep", "Data nested very deeply is answered as a problem.", spec=SPEC)
async def deep(bench: Bench) -> None:
    depth = 5_000
    payload = encode(envelope_of(StatusRequest(id="deep")))
    nested = b"[" * depth + b"]" * depth
    await refused(bench, payload.replace(b'"deep"', nested))


@check(
    "any.input.huge",
    "A huge field is answered, as a problem or not, and the broker goes on.",
    spec="docs/writing-a-broker.md, Wrong input",
)
async def huge(bench: Bench) -> None:
    answer = await bench.talk.exchange("status", StatusRequest(id="x" * HUGE_BYTES))
    holds(answer.envelope is not None, "the answer is no envelope")
    await bench.info()


@check(
    "any.input.line_breaks",
    "Line breaks in a value get into no header of the answer.",
    spec="docs/writing-a-broker.md, Wrong input; NATS headers",
)
async def line_breaks(bench: Bench) -> None:
    answer = await bench.talk.exchange("status", StatusRequest(id="a\r\nStolen: header\r\n\r\n{}"))
    holds(answer.problem is not None, "the answer is no problem")
    holds("Stolen" not in answer.headers, "the answer has a header of the caller's making")
    await bench.info()


@check(
    "any.input.extensions",
    "Attributes of the envelope that it does not know are ignored.",
    spec="CloudEvents 1.0.2, extension attributes",
)
async def extensions(bench: Bench) -> None:
    raw = msgspec.json.decode(encode(envelope_of(InfoRequest())), type=dict[str, Any])
    answer = await bench.talk.send("info", msgspec.json.encode({**raw, "favouritecolour": "red"}))
    problem = answer.problem
    holds(problem is None, f"problem: {problem.sentence() if problem else ''}")
