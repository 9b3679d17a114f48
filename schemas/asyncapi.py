"""The AsyncAPI 3.0 document of everything that travels: channels, operations, messages with samples."""

from __future__ import annotations

import inspect
import re
from typing import Any, NamedTuple

from schemas import subjects
from schemas.brokers import CONTRACTS, SERVICE_VERSION, Outcome
from schemas.commands import Answer, Command
from schemas.envelope import CONTENT_TYPE, Envelope
from schemas.events import Event
from schemas.json_schemas import components, message_types
from schemas.participation import HOW_TO_TAKE_PART, PARAMETERS
from schemas.queries import (
    CLIENT_ACTS,
    LETTER_ACTS,
    QUERIES,
    SITE_ASK,
    SITE_RPC,
    SUBSCRIPTION_ACTS,
    UPKEEP_ACTS,
    WEBHOOK_ACTS,
    WEBHOOK_QUERIES,
)
from schemas.samples import SAMPLE_ID, sample_envelope
from schemas.signals import Beat, LogLine, ProblemReply, Progress

_REF = "#/components/schemas/{name}"
_ANSWER_CHANNEL = "answer"


class Channel(NamedTuple):
    """A subject pattern and what is said there. ``action`` is what a client of the hub does, if it may."""

    name: str
    address: str | None
    message: type
    action: str | None
    summary: str
    reply: type | None = None
    stream: str | None = None


def channels() -> list[Channel]:
    """Every channel, in a fixed order."""
    found = [_command(kind) for kind in _kinds(Command)]
    found += [_event(kind) for kind in _kinds(Event)]
    for what, contract in (QUERIES | WEBHOOK_QUERIES).items():
        address = subjects.query(what)
        found.append(Channel(f"query.{what}", address, contract.query, "send", _first(contract.query), contract.reply))
    for what, contract in {**CLIENT_ACTS, **LETTER_ACTS, **SUBSCRIPTION_ACTS, **UPKEEP_ACTS, **WEBHOOK_ACTS}.items():
        address = f"{subjects.ROOT}.act.{{principal}}.{what}"
        found.append(Channel(f"act.{what}", address, contract.query, "send", _first(contract.query), contract.reply))
    for table, word, asker in ((SITE_RPC, "rpc", "The hub asks a site"), (SITE_ASK, "ask", "A site asks the hub")):
        for what, contract in table.items():
            address = f"{subjects.ROOT}.{word}.{{site}}.{what}"
            summary = f"{asker}: {_first(contract.query)}"
            found.append(Channel(f"{word}.{what}", address, contract.query, None, summary, contract.reply))
    for kind, operations in CONTRACTS.items():
        for operation, broker in operations.items():
            address = f"{subjects.ROOT}.req.{{site}}.{kind}.{{broker}}.{operation}"
            reply = Outcome if broker.long else broker.result
            name = f"request.{kind}.{operation}"
            found.append(Channel(name, address, broker.request, None, _first(broker.request), reply))
    found += [
        Channel("progress", f"{subjects.ROOT}.progress.{{site}}.{{operation}}", Progress, "receive", _first(Progress)),
        Channel("log", f"{subjects.ROOT}.log.{{site}}.{{instance}}.{{service}}", LogLine, "receive", _first(LogLine)),
        Channel("beat", f"{subjects.ROOT}.beat.{{site}}", Beat, "receive", _first(Beat)),
        Channel(_ANSWER_CHANNEL, None, Answer, "receive", "Answers to commands, on the inbox named by `replyto`."),
    ]
    return found


def subject_of() -> dict[str, str]:
    """The subject pattern of each message type that has one of its own."""
    return {_type(each.message): each.address for each in channels() if each.address is not None}


def document() -> dict[str, Any]:
    """The whole document."""
    types = message_types()
    references, parts = components([*types.values(), Envelope], ref_template=_REF)
    by_type = dict(zip(types, references, strict=False))
    found = channels()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:calque:bus",
        "info": {
            "title": "Calque on NATS",
            "version": SERVICE_VERSION,
            "description": HOW_TO_TAKE_PART,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "hub": {
                "host": "{host}:{port}",
                "protocol": "nats",
                "description": "The hub's NATS server; `context.json` in a stack's home has address and key.",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "4222"}},
            }
        },
        "channels": {each.name: _channel(each) for each in found},
        "operations": {f"{each.action}.{each.name}": _operation(each) for each in found if each.action is not None},
        "components": {
            "schemas": parts,
            "messages": {name: _message(name, kind, by_type[name]) for name, kind in types.items()},
        },
    }


def _kinds(base: type) -> list[Any]:
    return [kind for kind in message_types().values() if issubclass(kind, base)]


def _type(kind: Any) -> str:
    return str(kind.TYPE)


def _first(kind: type) -> str:
    """The first sentence of what the type's documentation says."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _command(kind: Any) -> Channel:
    to_site = _type(kind).startswith("calque.command.site.")
    where = "site.{site}" if to_site else "hub"
    address = f"{subjects.ROOT}.cmd.{where}.{{principal}}.{kind.AGGREGATE}.{{id}}.{kind.VERB}"
    name = f"command.{'site' if to_site else 'hub'}.{kind.AGGREGATE}.{kind.VERB}"
    action = None if to_site else "send"
    return Channel(name, address, kind, action, _first(kind), Answer, "CMD" if to_site else "JOBS")


def _event(kind: Any) -> Channel:
    address = f"{subjects.ROOT}.evt.{{writer}}.{kind.AGGREGATE}.{{id}}.{kind.EVENT}"
    return Channel(f"event.{kind.AGGREGATE}.{kind.EVENT}", address, kind, "receive", _first(kind), None, "EVENTS")


def _channel(each: Channel) -> dict[str, Any]:
    body: dict[str, Any] = {
        "address": each.address,
        "description": each.summary,
        "messages": {"message": {"$ref": f"#/components/messages/{_type(each.message)}"}},
    }
    if each.reply is not None and not issubclass(each.message, Command):
        body["messages"]["reply"] = {"$ref": f"#/components/messages/{_type(each.reply)}"}
        body["messages"]["problem"] = {"$ref": f"#/components/messages/{_type(ProblemReply)}"}
    parameters = re.findall(r"{(\w+)}", each.address or "")
    if parameters:
        body["parameters"] = {name: {"description": PARAMETERS[name]} for name in parameters}
    if each.stream is not None:
        body["x-nats-stream"] = each.stream
    return body


def _operation(each: Channel) -> dict[str, Any]:
    reference = f"#/channels/{each.name}"
    body: dict[str, Any] = {
        "action": each.action,
        "channel": {"$ref": reference},
        "summary": each.summary,
        "messages": [{"$ref": f"{reference}/messages/message"}],
    }
    if issubclass(each.message, Command):
        body["reply"] = {
            "address": {"location": "$message.payload#/replyto"},
            "channel": {"$ref": f"#/channels/{_ANSWER_CHANNEL}"},
        }
    elif each.reply is not None:
        body["reply"] = {
            "channel": {"$ref": reference},
            "messages": [{"$ref": f"{reference}/messages/{name}"} for name in ("reply", "problem")],
        }
    return body


def _message(name: str, kind: type, reference: dict[str, Any]) -> dict[str, Any]:
    extensions: dict[str, str] = {}
    source = "north"
    if issubclass(kind, Command) and name.startswith("calque.command.hub."):
        source = "admin"
        extensions = {"replyto": "_INBOX.4f2a", "expirytime": "2026-02-01T12:00:00.000000Z", "correlationid": SAMPLE_ID}
    return {
        "name": name,
        "title": kind.__name__,
        "summary": _first(kind),
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "properties": {
                "content-type": {"type": "string", "const": CONTENT_TYPE},
                "Nats-Msg-Id": {
                    "type": "string",
                    "description": "the envelope's id, where a stream stores the message",
                },
            },
            "required": ["content-type"],
        },
        "payload": {
            "allOf": [
                {"$ref": _REF.format(name=Envelope.__name__)},
                {"type": "object", "properties": {"type": {"const": name}, "data": reference}, "required": ["data"]},
            ]
        },
        "examples": [{"payload": sample_envelope(kind, type_name=name, source=source, **extensions)}],
    }
