"""Every subject of ``docs/messages.md`` with who may say what there: where hostile messages are sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from schemas.asyncapi import Channel, channels

Way = Literal["stored", "asked", "said"]
Connection = Literal["principal", "hub", "agent"]

BROKERS = {"dsb": "postgres", "psb": "process", "crb": "filesystem"}
AGGREGATE_ID = "fuzzed"
ADMIN = "admin"


class Target(NamedTuple):
    """``subject`` takes messages of ``kind``. ``way``: a stream stores it, somebody answers, whoever listens hears."""

    subject: str
    kind: str
    way: Way
    by: Connection


def targets(site: str) -> Iterator[Target]:
    """All of them, of one site and its hub."""
    for channel in channels():
        if channel.address is not None and (target := _target(channel, channel.address, site)) is not None:
            yield target


def _target(channel: Channel, address: str, site: str) -> Target | None:
    kind = str(channel.message.TYPE)  # type: ignore[attr-defined]
    part = channel.name.partition(".")[0]
    broker = BROKERS.get(address.split(".")[3], "") if part == "request" else ""
    if part == "request" and not broker:
        return None  # no broker of this kind runs
    subject = (
        address.replace("{site}", site)
        .replace("{writer}", site)
        .replace("{principal}", ADMIN)
        .replace("{broker}", broker)
        .replace("{id}", AGGREGATE_ID)
        .replace("{operation}", AGGREGATE_ID)
        .replace("{instance}", AGGREGATE_ID)
        .replace("{service}", "web")
    )
    match part:
        case "command" if ".hub." in channel.name:
            return Target(subject, kind, "stored", "principal")
        case "command":
            return Target(subject, kind, "stored", "hub")
        case "event":
            return Target(subject, kind, "stored", "agent")
        case "query" | "act":
            return Target(subject, kind, "asked", "principal")
        case "rpc":
            return Target(subject, kind, "asked", "hub")
        case "ask" | "request":
            return Target(subject, kind, "asked", "agent")
        case "progress" | "log" | "beat":
            return Target(subject, kind, "said", "agent")
    return None
