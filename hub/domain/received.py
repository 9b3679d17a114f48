"""A command as it came: who sent it (the subject says), what it wants, and whether it may be decided at all."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from schemas import commands
from schemas.commands import Command
from schemas.deadlines import check_deadline
from schemas.envelope import Envelope, unwrap
from schemas.expiry import expired
from schemas.problems import CalqueError, Problem, invalid
from schemas.registry import MESSAGES
from schemas.subjects import CommandSubject, inbox_of, reply_prefix
from schemas.values import Requester

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_@-]{0,99}")
"""Ids that callers may make. Ids with ``/`` are those of effects of operations, and nobody else's to use."""
TEAM = "default"

HUB_COMMANDS: dict[tuple[str, str], type[Command]] = {
    (kind.AGGREGATE, kind.VERB): kind
    for name, kind in MESSAGES.items()
    if name.startswith("calque.command.hub.") and issubclass(kind, commands.Command)
}


class Received(NamedTuple):
    """A command to the hub. ``aggregate_id`` is the id in its subject, ``id`` the command's own."""

    id: str
    principal: str
    aggregate: str
    aggregate_id: str
    verb: str
    command: Command
    envelope: Envelope

    @property
    def by(self) -> Requester:
        """Who asks. Every principal belongs to the one team of an embedded stack."""
        return Requester(principal=self.principal, team=TEAM)

    @property
    def kind(self) -> str:
        """``<aggregate>.<verb>``"""
        return f"{self.aggregate}.{self.verb}"


def check_id(text: str, *, field: str) -> Problem | None:
    """``None`` when a caller may use ``text`` as an id, else the problem."""
    if ID.fullmatch(text):
        return None
    return invalid(field, f"{text!r} is not an id", "use a UUIDv7 of your own making")


def read(
    subject: CommandSubject, envelope: Envelope, *, now: datetime, stored_at: float | None = None
) -> Received | Problem:
    """The command in ``envelope``, or why the hub can't decide it; ``stored_at`` is when the server stored it."""
    if problem := check_id(envelope.id, field="id"):
        return problem
    kind = HUB_COMMANDS.get((subject.aggregate, subject.verb))
    if kind is None:
        known = ", ".join(sorted(f"{aggregate}.{verb}" for aggregate, verb in HUB_COMMANDS))
        return invalid("subject", f"the hub has no command {subject.aggregate}.{subject.verb}", f"send one of: {known}")
    if envelope.type != kind.TYPE:
        return invalid("type", f"{envelope.type!r} does not fit the subject", f"send {kind.TYPE}")
    if problem := expired(envelope, now=now, stored_at=stored_at):
        return problem
    if problem := foreign_inbox(envelope, principal=subject.principal):
        return problem
    try:
        command = unwrap(envelope, kind)
    except CalqueError as error:
        return error.problem
    if isinstance(command, commands.Timed) and (problem := check_deadline(command.deadline_seconds)):
        return problem
    return Received(
        id=envelope.id,
        principal=subject.principal,
        aggregate=subject.aggregate,
        aggregate_id=subject.id,
        verb=subject.verb,
        command=command,
        envelope=envelope,
    )


def foreign_inbox(envelope: Envelope, *, principal: str) -> Problem | None:
    """``None`` unless the answer is wanted elsewhere than in an inbox of the sender."""
    own = reply_prefix(principal) + "."
    if envelope.replyto is None or (inbox_of(envelope.replyto) and envelope.replyto.startswith(own)):
        return None
    return invalid("replyto", f"{envelope.replyto!r} is not an inbox of {principal}", f"use a subject below {own}")
