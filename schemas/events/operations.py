"""Events of operations (a site's or the hub's), and of commands: what became of each, so that the same command gets
the same answer for ever."""

from __future__ import annotations

from typing import Any

from schemas.events.base import Event
from schemas.operations import Step
from schemas.problems import Problem
from schemas.registry import event
from schemas.values import (
    Cleanup,
    Requester,
)


@event("operation", "accepted")
class OperationAccepted(Event, frozen=True, kw_only=True):
    """An operation was accepted with its whole plan. Its id is that of the command which started it.

    ``request`` is the data of the command (no secrets), so that the saga needs nothing else to go on.
    """

    kind: str
    target: str
    name: str
    by: Requester
    steps: tuple[Step, ...]
    request: dict[str, Any] = {}
    parent: str | None = None
    deadline_seconds: float = 3600.0


@event("operation", "step_started")
class StepStarted(Event, frozen=True, kw_only=True):
    """An attempt at a step began."""

    step: str
    attempt: int


@event("operation", "step_succeeded")
class StepSucceeded(Event, frozen=True, kw_only=True):
    """A step is done. ``result`` is what later steps need (never a secret)."""

    step: str
    attempt: int
    result: dict[str, Any] = {}


@event("operation", "step_failed")
class StepFailed(Event, frozen=True, kw_only=True):
    """An attempt failed. ``final`` when the step is not tried again."""

    step: str
    attempt: int
    problem: Problem
    final: bool


@event("operation", "cancel_requested")
class CancelRequested(Event, frozen=True, kw_only=True):
    """Somebody asked to cancel; no new step starts, what was done is undone."""

    by: Requester


@event("operation", "undo_started")
class UndoStarted(Event, frozen=True, kw_only=True):
    """The operation goes back: nothing new starts, and what was done is undone in reverse order."""

    problem: Problem | None = None
    cancelled: bool = False


@event("operation", "step_undone")
class StepUndone(Event, frozen=True, kw_only=True):
    """The effect of a step is gone."""

    step: str


@event("operation", "step_undo_failed")
class StepUndoFailed(Event, frozen=True, kw_only=True):
    """An attempt to undo failed; it is repeated until it works."""

    step: str
    attempt: int
    problem: Problem


@event("operation", "succeeded")
class OperationSucceeded(Event, frozen=True, kw_only=True):
    """Every step is done."""

    result: dict[str, Any] = {}


@event("operation", "failed")
class OperationFailed(Event, frozen=True, kw_only=True):
    """The operation failed; ``cleanup`` says whether what it had made is gone."""

    problem: Problem
    cleanup: Cleanup = "none"


@event("operation", "cancelled")
class OperationCancelled(Event, frozen=True, kw_only=True):
    """The operation was cancelled; ``cleanup`` says whether what it had made is gone."""

    cleanup: Cleanup = "none"


@event("operation", "cleaned_up")
class OperationCleanedUp(Event, frozen=True, kw_only=True):
    """Clean-up that was pending when the operation ended is done."""


@event("command", "rejected")
class CommandRejected(Event, frozen=True, kw_only=True):
    """A command was refused. The aggregate's id is the command's."""

    problem: Problem
    kind: str


@event("command", "accepted")
class CommandAccepted(Event, frozen=True, kw_only=True):
    """A command was accepted: stored together with what it led to, in the aggregate that a rejection would stand in,
    so that a command is never both."""

    kind: str


@event("command", "forwarded")
class CommandForwarded(Event, frozen=True, kw_only=True):
    """The hub passed a command on to a site, under its own id; from here on its outcome is the site's alone.

    ``type`` and ``data`` are those of the command to the site, ``target`` the aggregate's id in its subject.
    """

    site: str
    target: str
    type: str
    data: dict[str, Any]
