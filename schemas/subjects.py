"""Every subject of Calque is built and parsed here, and nowhere else (design, section 3)."""

from __future__ import annotations

import re
from typing import NamedTuple

from schemas.names import is_token

ROOT = "calque"
HUB = "hub"
HUB_BEAT = f"{ROOT}.beat.{HUB}"
COMMANDS_TO_HUB = f"{ROOT}.cmd.hub.>"
COMMANDS_TO_SITES = f"{ROOT}.cmd.site.>"
QUERIES = f"{ROOT}.qry.>"
ALL_EVENTS = f"{ROOT}.evt.>"
DEAD_LETTERS = f"{ROOT}.dlq.>"
ACTS = f"{ROOT}.act.>"
SNAPSHOTS = f"{ROOT}.snap.>"
REBUILD = f"{ROOT}.rebuild"
"""Below which the hub notes how far the rebuilding of its ``EVENTS`` is."""
SUBSCRIPTIONS_PER_PRINCIPAL = 16
HUB_JETSTREAM = "JSHUB.API"
"""Where sites and principals find their share of the hub's JetStream: below ``$JS.API`` an account finds its own."""


class SubjectError(ValueError):
    """A part of a subject is not a token, or a subject has not the form that was asked for."""


class CommandSubject(NamedTuple):
    """A command's subject in parts; ``site`` is ``hub`` for a command to the hub."""

    site: str
    principal: str
    aggregate: str
    id: str
    verb: str


class EventSubject(NamedTuple):
    """An event's subject in parts; ``writer`` is a site or ``hub``."""

    writer: str
    aggregate: str
    id: str
    event: str


class LetterSubject(NamedTuple):
    """A dead letter's subject in parts; ``place`` is the site where it lies, or ``hub``."""

    place: str
    stream: str
    consumer: str
    key: str


class RequestSubject(NamedTuple):
    """A broker request's subject in parts."""

    site: str
    kind: str
    broker: str
    operation: str


def _join(*parts: str) -> str:
    for part in parts:
        if not is_token(part):
            raise SubjectError(f"{part!r} can't stand in a subject")
    return ".".join((ROOT, *parts))


def hub_command(*, principal: str, aggregate: str, id: str, verb: str) -> str:
    """``calque.cmd.hub.<principal>.<aggregate>.<id>.<verb>``"""
    return _join("cmd", HUB, principal, aggregate, id, verb)


def site_command(*, site: str, principal: str, aggregate: str, id: str, verb: str) -> str:
    """``calque.cmd.site.<site>.<principal>.<aggregate>.<id>.<verb>``"""
    return _join("cmd", "site", site, principal, aggregate, id, verb)


def site_commands(site: str) -> str:
    """The filter of all commands to one site."""
    return _join("cmd", "site", site) + ".>"


def parse_command(subject: str) -> CommandSubject:
    """The parts of a command's subject, to the hub or to a site."""
    match subject.split("."):
        case [ROOT_, "cmd", "hub", principal, aggregate, id, verb] if ROOT_ == ROOT:
            return CommandSubject(HUB, principal, aggregate, id, verb)
        case [ROOT_, "cmd", "site", site, principal, aggregate, id, verb] if ROOT_ == ROOT:
            return CommandSubject(site, principal, aggregate, id, verb)
    raise SubjectError(f"{subject!r} is no command's subject")


def event(*, writer: str, aggregate: str, id: str, event: str) -> str:
    """``calque.evt.<site or hub>.<aggregate>.<id>.<event>``"""
    return _join("evt", writer, aggregate, id, event)


def events_of(writer: str) -> str:
    """The filter of all events of one writer."""
    return _join("evt", writer) + ".>"


def events_of_kind(*, aggregate: str, event: str, writer: str | None = None) -> str:
    """The filter of one kind of event of all aggregates, of one writer or of all."""
    kind = _join("evt", writer or "any", aggregate, "any", event).split(".")
    kind[4] = "*"
    if writer is None:
        kind[2] = "*"
    return ".".join(kind)


def events_of_aggregate(*, writer: str, aggregate: str, id: str) -> str:
    """The filter of one aggregate, against which an append is guarded."""
    return _join("evt", writer, aggregate, id) + ".>"


def events_matching(writer: str, aggregate: str, id: str, event: str = "*") -> str:
    """The filter of events whose parts are these; ``*`` is any."""
    parts = (writer, aggregate, id, event)
    for part in parts:
        if part != "*" and not is_token(part):
            raise SubjectError(f"{part!r} can't stand in a subject")
    return ".".join((ROOT, "evt", *parts))


def parse_event(subject: str) -> EventSubject:
    """The parts of an event's subject."""
    match subject.split("."):
        case [ROOT_, "evt", writer, aggregate, id, event] if ROOT_ == ROOT:
            return EventSubject(writer, aggregate, id, event)
    raise SubjectError(f"{subject!r} is no event's subject")


def dead_letter(*, place: str, stream: str, consumer: str, key: str) -> str:
    """``calque.dlq.<site or hub>.<stream>.<consumer>.<key>``: one message is one letter, however often it fails."""
    return _join("dlq", place, stream, consumer, key)


def dead_letter_with(key: str) -> str:
    """The filter of the letter with this key."""
    if not is_token(key):
        raise SubjectError(f"{key!r} can't stand in a subject")
    return f"{ROOT}.dlq.*.*.*.{key}"


def parse_dead_letter(subject: str) -> LetterSubject:
    """The parts of a dead letter's subject."""
    match subject.split("."):
        case [ROOT_, "dlq", place, stream, consumer, key] if ROOT_ == ROOT:
            return LetterSubject(place, stream, consumer, key)
    raise SubjectError(f"{subject!r} is no dead letter's subject")


def writer_of(subject: str) -> str:
    """The writer in an event's subject, whatever else it is; empty if it is none."""
    head, _, rest = subject.partition(f"{ROOT}.evt.")
    return "" if head or not rest else rest.partition(".")[0]


def broker_request(*, site: str, kind: str, broker: str, operation: str) -> str:
    """``calque.req.<site>.<dsb|psb|crb|arb>.<broker>.<operation>``; stays at the site."""
    return _join("req", site, kind, broker, operation)


def broker_requests(*, site: str, kind: str, broker: str) -> str:
    """The filter of all requests to one broker."""
    return _join("req", site, kind, broker) + ".>"


def parse_broker_request(subject: str) -> RequestSubject:
    """The parts of a broker request's subject."""
    match subject.split("."):
        case [ROOT_, "req", site, kind, broker, operation] if ROOT_ == ROOT:
            return RequestSubject(site, kind, broker, operation)
    raise SubjectError(f"{subject!r} is no broker request's subject")


def query(what: str) -> str:
    """``calque.qry.<what>``"""
    return _join("qry", what)


def act(*, principal: str, what: str) -> str:
    """``calque.act.<principal>.<what>``: a client's change that may not be stored, as in ADR 24."""
    return _join("act", principal, what)


def acts(what: str) -> str:
    """The filter of one such change by anybody."""
    return f"{_join('act')}.*.{what}"


def principal_of(subject: str) -> str:
    """Who sent on :func:`act`'s subject."""
    match subject.split("."):
        case [ROOT_, "act", principal, _] if ROOT_ == ROOT:
            return principal
    raise SubjectError(f"{subject!r} is no client's act")


def subscription_consumers(principal: str) -> tuple[str, ...]:
    """The names that consumers of a principal's subscriptions may have: its credential holds just these.

    One more than it may have subscriptions: a subscription that is opened again moves to another consumer.
    """
    return tuple(f"{principal}_{number}" for number in range(1, SUBSCRIPTIONS_PER_PRINCIPAL + 2))


def reply_prefix(principal: str) -> str:
    """Below which answers to a principal's commands go: ``_INBOX.<principal>``; no other principal hears them."""
    return f"_INBOX.{principal}"


def site_rpc(*, site: str, operation: str) -> str:
    """``calque.rpc.<site>.<operation>``: the hub asks a site's agent; crosses the leaf, is never stored."""
    return _join("rpc", site, operation)


def site_ask(*, site: str, operation: str) -> str:
    """``calque.ask.<site>.<operation>``: a site's agent asks the hub, as itself only."""
    return _join("ask", site, operation)


def parse_ask(subject: str) -> tuple[str, str]:
    """The asking site and the operation."""
    match subject.split("."):
        case [ROOT_, "ask", site, operation] if ROOT_ == ROOT:
            return site, operation
    raise SubjectError(f"{subject!r} is no site's question")


def progress(*, site: str, operation: str) -> str:
    """``calque.progress.<site>.<operation>``; ``hub`` stands for the hub's own operations."""
    return _join("progress", site, operation)


def log(*, site: str, instance: str, service: str) -> str:
    """``calque.log.<site>.<instance>.<service>``"""
    return _join("log", site, instance, service)


def beat(site: str) -> str:
    """``calque.beat.<site>``: the heartbeat of a site, or of the hub."""
    return _join("beat", site)


def snapshot(generation: int, part: str) -> str:
    """``calque.snap.<generation>.<part>``: a part of a snapshot, its manifest, or all of it (``>``); at the hub."""
    return f"{_join('snap', str(generation))}.{part}" if part == ">" else _join("snap", str(generation), part)


def parse_snapshot(subject: str) -> tuple[int, str]:
    """The generation and the part."""
    match subject.split("."):
        case [ROOT_, "snap", generation, part] if ROOT_ == ROOT and generation.isdecimal():
            return int(generation), part
    raise SubjectError(f"{subject!r} is no part of a snapshot")


def outbox(site: str) -> str:
    """The name of a site's (or the hub's) own event stream."""
    return f"EVT_{site}"


def inbox(site: str) -> str:
    """The name of the hub's stream that holds what one site sent, before it is filtered into ``EVENTS``."""
    return f"IN_{site}"


def outbox_delivery(site: str) -> str:
    """Where the durable consumer of a site's outbox delivers to the hub."""
    return f"dlv.evt.{site}"


_INBOX = re.compile(r"_INBOX(\.[^\s.*>]+)+")
_LONGEST_INBOX = 512


def inbox_of(replyto: str | None) -> str | None:
    """Where an answer goes: only to an inbox, because who answers may publish where who asks may not. ``None`` for
    everything else."""
    if replyto is None or len(replyto) > _LONGEST_INBOX or not _INBOX.fullmatch(replyto):
        return None
    return replyto
