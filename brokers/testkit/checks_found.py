"""Being found and speaking properly: discovery, envelopes, the broker's own description. For every kind."""

from __future__ import annotations

import re
from typing import Any, get_type_hints

import msgspec

from brokers.testkit.bench import Bench
from brokers.testkit.checks import Unmet, check, holds
from brokers.testkit.conversation import envelope_of, shown
from bus.discovery import ServiceInfo, parse_info
from bus.service import schema_id
from schemas.brokers import CONTRACTS, DataServiceHealth, Health, InfoRequest, Outcome, StatusRequest
from schemas.envelope import SCHEMA_PREFIX, encode
from schemas.ids import new_id
from schemas.values import Plan

ADR_32 = "NATS ADR-32, services API"
DESIGN_3 = "design, section 3: one CloudEvents envelope per message; schemas/envelope.py"
DISCOVERY_SECONDS = 0.4
_VERSION = re.compile(r"\d+\.\d+\.\d+.*")


async def found(bench: Bench, verb: str) -> list[dict[str, Any]]:
    """The answers to ``$SRV.<verb>`` that say they are of this broker, raw."""
    talk = bench.talk
    talk.sent = f"$SRV.{verb}"
    answers: list[dict[str, Any]] = []
    others = 0
    async for message in talk.bus.replies(f"$SRV.{verb}", b"", gap_seconds=DISCOVERY_SECONDS):
        try:
            raw = msgspec.json.decode(message.payload, type=dict[str, Any])
        except msgspec.MsgspecError:
            others += 1
            continue
        metadata = raw.get("metadata") or {}
        if (metadata.get("calque.kind"), metadata.get("calque.name")) == (talk.kind, talk.broker):
            answers.append(raw)
        else:
            others += 1
    talk.came = f"{len(answers)} of this broker, {others} of others" + "".join(
        f"; {shown(msgspec.json.encode(each))}" for each in answers[:1]
    )
    return answers


async def service(bench: Bench) -> ServiceInfo:
    """The broker as it is found."""
    answers = await found(bench, "INFO")
    if not answers:
        raise Unmet("$SRV.INFO finds no service with the metadata calque.kind and calque.name of this broker")
    try:
        return parse_info(msgspec.json.encode(answers[0]))
    except msgspec.MsgspecError as error:
        raise Unmet(f"the answer to $SRV.INFO is no description of a service: {error}") from None


@check("any.found.ping", "It answers $SRV.PING with its name, id and version.", spec=ADR_32)
async def ping(bench: Bench) -> None:
    answers = await found(bench, "PING")
    holds(answers, "$SRV.PING does not find the broker")
    for field in ("name", "id", "version"):
        holds(answers[0].get(field), f"the answer to $SRV.PING has no {field}")


@check(
    "any.found.metadata",
    "$SRV.INFO says kind, name and site in its metadata, and a semantic version.",
    spec="docs/writing-a-broker.md, Being found",
)
async def metadata(bench: Bench) -> None:
    info = await service(bench)
    holds(info.metadata.get("calque.site") == bench.talk.site, f"calque.site is {info.metadata.get('calque.site')!r}")
    holds(_VERSION.fullmatch(info.version), f"version {info.version!r} is not a semantic version")


@check(
    "any.found.endpoints",
    "Every operation of its kind is an endpoint on calque.req.<site>.<kind>.<broker>.<operation>.",
    spec="schemas/brokers, CONTRACTS; schemas/subjects.py, broker_request",
)
async def endpoints(bench: Bench) -> None:
    subjects = {endpoint.subject for endpoint in (await service(bench)).endpoints}
    missing = [op for op in CONTRACTS[bench.talk.kind] if bench.talk.subject(op) not in subjects]
    if missing == ["preview_masking"] and not (await bench.info()).can_mask:
        missing = []  # nobody asks a broker for it that can't mask
    holds(not missing, f"no endpoint for {', '.join(missing)}")


@check(
    "any.found.schemas",
    "Every endpoint names the schemas of its request and of its reply.",
    spec="docs/writing-a-broker.md, Being found; docs of the published schemas",
)
async def schemas(bench: Bench) -> None:
    by_subject = {endpoint.subject: endpoint for endpoint in (await service(bench)).endpoints}
    for operation, contract in CONTRACTS[bench.talk.kind].items():
        endpoint = by_subject.get(bench.talk.subject(operation))
        if endpoint is None:
            continue
        reply = Outcome if contract.long else contract.result
        expected = {"calque.request": schema_id(contract.request), "calque.reply": schema_id(reply)}
        said = {key: endpoint.metadata.get(key) for key in expected}
        holds(said == expected, f"{operation}: {said}, not {expected}")


@check("any.found.stats", "$SRV.STATS counts the requests of each endpoint.", spec=ADR_32)
async def stats(bench: Bench) -> None:
    async def requests() -> int:
        answers = await found(bench, "STATS")
        holds(answers, "$SRV.STATS does not find the broker")
        endpoints = answers[0].get("endpoints") or []
        subject = bench.talk.subject("info")
        return sum(int(each.get("num_requests", 0)) for each in endpoints if each.get("subject") == subject)

    before = await requests()
    await bench.info()
    holds(await requests() > before, "the number of requests did not grow with a request")


@check("any.reply.envelope", "A reply is a CloudEvents 1.0 envelope of the reply's type and schema.", spec=DESIGN_3)
async def envelope(bench: Bench) -> None:
    answer = await bench.talk.exchange("info", InfoRequest())
    reply = answer.envelope
    if reply is None:
        raise Unmet("the reply is no CloudEvents envelope")
    expected = bench.result_of("info").TYPE
    holds(reply.type == expected, f"the type is {reply.type}, not {expected}")
    schema = SCHEMA_PREFIX + expected.removeprefix("calque.")
    holds(reply.dataschema == schema, f"dataschema is {reply.dataschema}, not {schema}")
    holds(reply.id and reply.source and reply.time, "id, source or time is empty")


@check("any.reply.cause", "A reply says in causationid which request it answers.", spec=DESIGN_3)
async def cause(bench: Bench) -> None:
    id = new_id()
    answer = await bench.talk.send("info", encode(envelope_of(InfoRequest(), id=id)))
    said = answer.envelope.causationid if answer.envelope else None
    holds(said == id, f"causationid is {said}, the request was {id}")


@check(
    "any.problem.headers",
    "A problem carries the headers Nats-Service-Error and Nats-Service-Error-Code.",
    spec=f"{ADR_32}; schemas/brokers",
)
async def headers(bench: Bench) -> None:
    answer = await bench.talk.exchange("status", StatusRequest(id=new_id()))
    holds(answer.problem is not None, "the status of an unknown id is no problem")
    for name in ("Nats-Service-Error", "Nats-Service-Error-Code"):
        holds(answer.headers.get(name), f"there is no header {name}")


@check(
    "any.info.complete",
    "info has every field of its type, its own name, and no empty list where something must stand.",
    spec="schemas/brokers: DsbInfo, PsbInfo, CrbInfo",
)
async def info_complete(bench: Bench) -> None:
    info = await bench.info()
    holds(info.name == bench.talk.broker, f"info is of {info.name!r}, asked was {bench.talk.broker!r}")
    holds(_VERSION.fullmatch(info.version), f"version {info.version!r} is not a semantic version")
    needed = {"dsb": ("types", "plans"), "psb": ("artifacts", "spaces"), "crb": ("repositories", "protocols")}
    for field in needed[bench.talk.kind]:
        holds(getattr(info, field), f"{field} is empty")


@check(
    "any.info.types",
    "info is typed strictly: numbers are numbers, lists are lists, no unknown words in enumerations.",
    spec="schemas/brokers: DsbInfo, PsbInfo, CrbInfo; schemas/values.py",
)
async def info_types(bench: Bench) -> None:
    answer = await bench.talk.exchange("info", InfoRequest())
    if answer.envelope is None:
        raise Unmet("info is not answered with an envelope")
    raw = msgspec.json.decode(answer.envelope.data, type=dict[str, Any])
    expected = bench.result_of("info")
    try:
        msgspec.convert(raw, expected, strict=True)
    except msgspec.ValidationError as error:
        raise Unmet(f"info is not a {expected.TYPE}: {error}") from None
    unknown = set(raw) - set(get_type_hints(expected))
    holds(not unknown, f"fields that the schema does not know: {', '.join(sorted(unknown))}")
    for plan in raw.get("plans", ()):
        extra = set(plan) - set(get_type_hints(Plan))
        holds(not extra, f"fields of a plan that the schema does not know: {', '.join(sorted(extra))}")


@check("any.health", "health without an id answers how the technology itself is.", spec="schemas/brokers, Health")
async def health(bench: Bench) -> None:
    said = await bench.talk.ask("health", DataServiceHealth(), Health)
    holds(said.healthy, f"it is not healthy: {said.message or 'it does not say why'}")
