"""The webhook aggregate: what is sent on to whom, from where, and under which secret. Its id is its name."""

from __future__ import annotations

import msgspec

from schemas import commands as cmd
from schemas.base import Fact
from schemas.commands import Command
from schemas.events import (
    Event,
    WebhookAdded,
    WebhookPaused,
    WebhookRemoved,
    WebhookReplayed,
    WebhookResumed,
    WebhookRotated,
)
from schemas.problems import Problem, conflict, not_found
from schemas.values import Requester
from schemas.webhooks import StartAt, WebhookSpec, check_webhook

OVERLAP_SECONDS = 86400.0
"""How long deliveries are signed with the secret before as well."""


class Webhook(Fact, frozen=True, kw_only=True):
    """A webhook that is there.

    ``generation`` counts its beginnings: each has a place in the record where it starts, ``start`` or else behind the
    event that made it. ``key`` is that event's cause, so that a name that is used again has another secret.
    """

    spec: WebhookSpec
    by: Requester
    key: str
    start: StartAt | None = None
    generation: int = 1
    paused: bool = False
    reason: str = ""
    secret: int = 1
    secret_since: float = 0.0

    def overlaps(self, now: float) -> bool:
        """Whether the secret before this one signs too; both times are Unix seconds."""
        return self.secret > 1 and now < self.secret_since + OVERLAP_SECONDS


def evolve(state: Webhook | None, event: Event, *, key: str = "", at: float = 0.0) -> Webhook | None:
    """The state after ``event``; ``key`` is the id of the command that caused it, ``at`` its time in Unix seconds."""
    match event:
        case WebhookAdded(spec=spec, by=by, start=start):
            return Webhook(spec=spec, by=by, start=start, key=key)
        case WebhookRemoved():
            return None
    if state is None:
        return None
    match event:
        case WebhookPaused(reason=reason):
            return _replace(state, paused=True, reason=reason)
        case WebhookResumed():
            return _replace(state, paused=False, reason="")
        case WebhookReplayed(start=start, generation=generation):
            return _replace(state, start=start, generation=generation)
        case WebhookRotated(version=version):
            return _replace(state, secret=version, secret_since=at)
    return state


def decide(state: Webhook | None, command: Command, *, name: str, by: Requester) -> list[Event] | Problem:
    """What a command makes of the webhook ``name``."""
    if isinstance(command, cmd.AddWebhook):
        return _add(state, command, name=name, by=by)
    if state is None:
        return not_found("webhook", f"there is no webhook {name!r}", "see: calque webhook list")
    match command:
        case cmd.RemoveWebhook():
            return [WebhookRemoved(by=by)]
        case cmd.PauseWebhook(reason=reason):
            return [] if state.paused else [WebhookPaused(by=by, reason=reason[:500])]
        case cmd.ResumeWebhook():
            return [WebhookResumed(by=by)] if state.paused else []
        case cmd.ReplayWebhook(start=start):
            return [WebhookReplayed(by=by, start=start, generation=state.generation + 1)]
        case cmd.RotateWebhook():
            return [WebhookRotated(by=by, version=state.secret + 1)]
    raise AssertionError(f"{type(command).__name__} is no command to a webhook")


def _add(state: Webhook | None, command: cmd.AddWebhook, *, name: str, by: Requester) -> list[Event] | Problem:
    if found := list(check_webhook(name, command.spec)):
        first = found[0]
        more = "; ".join(each.sentence() for each in found[1:])
        return msgspec.structs.replace(first, message=f"{first.message}; {more}") if more else first
    if state is None:
        return [WebhookAdded(spec=command.spec, by=by, start=command.start)]
    if state.spec == command.spec and command.start is None:
        return []
    return conflict("name", f"there is a webhook {name!r} already", f"remove it first: calque webhook remove {name}")


def _replace(state: Webhook, **changes: object) -> Webhook:
    return msgspec.structs.replace(state, **changes)
