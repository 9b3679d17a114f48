"""Operations of hub and sites, and how commands were answered.

Most events are about operations, and most operations have ended: so events change a row in place, and what is left of
an operation that has ended is kept as its JSON, a fifth of the size, and read when somebody asks (after a start from a
snapshot: in its pieces).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from hub.projections.rows import Key, Rows
from schemas import events as ev
from schemas.events import Event, OperationAccepted
from schemas.problems import Problem
from schemas.saga import Operation, StepState, StepStatus
from schemas.values import Cleanup, OperationState

Outcome = Literal["succeeded", "failed", "cancelled"]
UNWRITABLE = (OverflowError, TypeError, ValueError, RecursionError)
"""What is raised for values that could be read and can't be written: a number of fifty digits."""


class StepRow(msgspec.Struct, array_like=True):
    """How far a step is, as :class:`schemas.saga.StepState` has it, and when it began and ended."""

    status: StepStatus = "pending"
    attempt: int = 0
    started: str = ""
    ended: str = ""
    undo_attempt: int = 0
    problem: Problem | None = None
    result: dict[str, Any] | None = None


class Progress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What :class:`schemas.saga.Operation` has besides the fields of :class:`OperationRow`; steps by their ids.

    ``begin`` is the acceptance as JSON: seldom asked for, and big.
    """

    begin: msgspec.Raw
    steps: dict[str, StepRow]
    phase: Literal["running", "undoing", "ended"] = "running"
    problem: Problem | None = None
    cancelled: bool = False
    result: dict[str, Any] = {}

    @property
    def accepted(self) -> OperationAccepted:
        """How it began, with its plan; read anew each time."""
        return _accepted.decode(self.begin)


_accepted = msgspec.json.Decoder(OperationAccepted)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Progress)


class OperationRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An operation with the times that its events carry.

    Its progress is ``open`` while something may happen yet; of one that has ended it is kept elsewhere, as JSON.
    """

    writer: str
    id: str
    kind: str
    target: str
    name: str
    parent: str | None = None
    outcome: Outcome | None = None
    cleanup: Cleanup = "none"
    begun: bool = False
    created_at: str = ""
    ended_at: str = ""
    open: Progress | None = None

    @property
    def live(self) -> bool:
        """Whether a runner still has something to do for it."""
        return self.outcome is None or self.cleanup in ("pending", "stuck")

    @property
    def state(self) -> OperationState:
        """The state in the words of the design."""
        return self.outcome or ("running" if self.begun else "accepted")


class CommandRow(msgspec.Struct, kw_only=True):
    """A command that started no operation of its own: rejected, or a cancel that was accepted."""

    writer: str
    rejected: ev.CommandRejected | None = None
    cancels: str | None = None


class Operations:
    """All operations by writer and id; ``ended`` is the progress of those that have ended, as JSON. ``by_id`` names the
    writers that know an id."""

    def __init__(self) -> None:
        self.rows: dict[Key, OperationRow] = {}
        self.ended: Rows[msgspec.Raw] = Rows(msgspec.Raw)
        self.commands: dict[Key, CommandRow] = {}
        self.by_id: dict[str, tuple[str, ...]] = {}
        self.children: dict[str, set[Key]] = {}
        self.live: set[Key] = set()

    # --- taking in events

    def apply(
        self, writer: str, id: str, event: Event, time: str, _operation: str | None, causation: str | None
    ) -> None:
        """An event of an operation. What comes before the acceptance changes nothing, but for a wish to cancel."""
        if type(event) is OperationAccepted:
            self._accepted((writer, id), event, time)
            return
        row = self.rows.get((writer, id))
        if row is not None:
            evolve = _EVOLVE.get(type(event))
            if evolve is not None:
                progress = row.open
                if progress is None:
                    progress = row.open = self.progress(row)
                    self.ended.discard((writer, id))
                evolve(row, progress, event, time)
                if row.outcome is not None:
                    self._ended((writer, id), row)
        if type(event) is ev.CancelRequested and causation is not None:
            self.commands[writer, causation] = CommandRow(writer=writer, cancels=id)
            self._known(causation, writer)

    def fold_of(self, kind: type[Event]) -> Callable[[str, str, Any, str, str | None, str | None], None]:
        """What does the same as :meth:`apply` for events of one type, with fewer questions."""
        evolve = _EVOLVE.get(kind)
        if evolve is None or kind in _ENDS:
            return self.apply
        rows, apply = self.rows, self.apply

        def fold(writer: str, id: str, event: Any, time: str, operation: str | None, causation: str | None) -> None:
            row = rows.get((writer, id))
            if row is None or row.open is None or row.outcome is not None:
                apply(writer, id, event, time, operation, causation)
            else:
                evolve(row, row.open, event, time)

        return fold

    def apply_command(
        self, writer: str, id: str, event: Event, _time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """An event of a command."""
        if type(event) is ev.CommandRejected:
            self.commands[writer, id] = CommandRow(writer=writer, rejected=event)
            self._known(id, writer)

    def _accepted(self, key: Key, event: OperationAccepted, time: str) -> None:
        before = self.rows.get(key)
        if before is None:
            self._known(key[1], key[0])
        else:
            self.ended.discard(key)
            if before.parent is not None:
                self.children[before.parent].discard(key)
        self.rows[key] = OperationRow(
            writer=key[0],
            id=key[1],
            kind=event.kind,
            target=event.target,
            name=event.name,
            parent=event.parent,
            created_at=time,
            open=Progress(begin=_begin(event), steps={step.id: StepRow() for step in event.steps}),
        )
        self.live.add(key)
        if event.parent is not None:
            self.children.setdefault(event.parent, set()).add(key)

    def _ended(self, key: Key, row: OperationRow) -> None:
        if row.cleanup in ("pending", "stuck"):
            self.live.add(key)
            return
        self.live.discard(key)
        try:
            self.ended[key] = msgspec.Raw(_encoder.encode(row.open))
        except UNWRITABLE:
            return  # a result that only just could be read; it stays as it is
        row.open = None

    def _known(self, id: str, writer: str) -> None:
        known = self.by_id.get(id)
        if known is None:
            self.by_id[id] = (writer,)
        elif writer not in known:
            self.by_id[id] = tuple(sorted((*known, writer)))

    def index(self) -> None:
        """Make what follows from the rows, after they were loaded."""
        for writer, id in (*self.rows, *self.commands):
            self._known(id, writer)
        for key, row in self.rows.items():
            if row.live:
                self.live.add(key)
            if row.parent is not None:
                self.children.setdefault(row.parent, set()).add(key)

    # --- being asked

    def get(self, writer: str, id: str) -> OperationRow | None:
        """One operation of one writer."""
        return self.rows.get((writer, id))

    def progress(self, row: OperationRow) -> Progress:
        """How far it is. Not to be changed: it may be a copy."""
        return _decoder.decode(self.ended[row.writer, row.id]) if row.open is None else row.open

    def whole(self, row: OperationRow) -> Operation:
        """All of it, put together anew."""
        now = self.progress(row)
        accepted = now.accepted
        plan = {step.id: step for step in accepted.steps}
        return Operation(
            id=row.id,
            accepted=accepted,
            steps={
                id: StepState(
                    step=plan[id],
                    status=step.status,
                    attempt=step.attempt,
                    result=step.result or {},
                    problem=step.problem,
                    undo_attempt=step.undo_attempt,
                )
                for id, step in now.steps.items()
            },
            phase=now.phase,
            outcome=row.outcome,
            problem=now.problem,
            cancelled=now.cancelled,
            cleanup=row.cleanup,
            result=now.result,
        )

    def find(self, id: str) -> list[OperationRow]:
        """The operations with this id: one, unless two sites claim the same."""
        rows = (self.rows.get((writer, id)) for writer in self.by_id.get(id, ()))
        return [row for row in rows if row is not None]

    def commands_with(self, id: str) -> list[CommandRow]:
        """What is known of the command ``id``, besides operations."""
        rows = (self.commands.get((writer, id)) for writer in self.by_id.get(id, ()))
        return [row for row in rows if row is not None]

    def live_rows(self, *, writer: str | None = None) -> Iterator[OperationRow]:
        """The operations that have something left to do: of one writer, or of all."""
        for key in sorted(self.live if writer is None else [key for key in self.live if key[0] == writer]):
            yield self.rows[key]

    def using_image(self, image: str) -> list[str]:
        """Live operations that read or write an image, other than its deletion."""
        live = (row for row in self.live_rows() if row.outcome is None)
        return [row.id for row in live if image in _images_of(self.progress(row).accepted)]


def _begin(event: OperationAccepted) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encoder.encode(event))
    except UNWRITABLE:
        return msgspec.Raw(_encoder.encode(msgspec.structs.replace(event, request={})))


def _images_of(accepted: OperationAccepted) -> set[str]:
    request: dict[str, Any] = accepted.request
    content = request.get("content")
    named = {accepted.target, request.get("image"), content.get("image") if isinstance(content, dict) else None}
    return {each for each in named if isinstance(each, str)}


# What an event changes: the same as in schemas.saga.evolve, in place.


def _step_started(row: OperationRow, now: Progress, event: ev.StepStarted, time: str) -> None:
    step = now.steps.get(event.step)
    if step is not None:
        step.status, step.attempt, step.problem = "running", event.attempt, None
        step.started, step.ended = time, ""
        row.begun = True


def _step_succeeded(row: OperationRow, now: Progress, event: ev.StepSucceeded, time: str) -> None:
    step = now.steps.get(event.step)
    if step is not None:
        step.status, step.attempt, step.result, step.problem = "done", event.attempt, event.result, None
        step.ended = time
        row.begun = True


def _step_failed(row: OperationRow, now: Progress, event: ev.StepFailed, time: str) -> None:
    step = now.steps.get(event.step)
    if step is not None:
        step.status, step.attempt, step.problem = "failed" if event.final else "waiting", event.attempt, event.problem
        step.ended = time
        row.begun = True


def _step_undone(row: OperationRow, now: Progress, event: ev.StepUndone, time: str) -> None:
    step = now.steps.get(event.step)
    if step is not None:
        step.status, step.ended = "undone", time
        row.begun = True


def _step_undo_failed(_row: OperationRow, now: Progress, event: ev.StepUndoFailed, _time: str) -> None:
    step = now.steps.get(event.step)
    if step is not None:
        step.undo_attempt, step.problem = event.attempt, event.problem


def _undo_started(row: OperationRow, now: Progress, event: ev.UndoStarted, _time: str) -> None:
    now.phase, now.problem, now.cancelled, row.cleanup = "undoing", event.problem, event.cancelled, "pending"


def _succeeded(row: OperationRow, now: Progress, event: ev.OperationSucceeded, time: str) -> None:
    now.phase, now.result, row.outcome, row.cleanup, row.ended_at = "ended", event.result, "succeeded", "none", time


def _failed(row: OperationRow, now: Progress, event: ev.OperationFailed, time: str) -> None:
    now.phase, now.problem = "ended", event.problem
    row.outcome, row.cleanup, row.ended_at = "failed", event.cleanup, time


def _cancelled(row: OperationRow, now: Progress, event: ev.OperationCancelled, time: str) -> None:
    now.phase, row.outcome, row.cleanup, row.ended_at = "ended", "cancelled", event.cleanup, time


def _cleaned_up(row: OperationRow, _now: Progress, _event: ev.OperationCleanedUp, _time: str) -> None:
    row.cleanup = "done"


_EVOLVE: dict[type[Event], Callable[[OperationRow, Progress, Any, str], None]] = {
    ev.StepStarted: _step_started,
    ev.StepSucceeded: _step_succeeded,
    ev.StepFailed: _step_failed,
    ev.StepUndone: _step_undone,
    ev.StepUndoFailed: _step_undo_failed,
    ev.UndoStarted: _undo_started,
    ev.OperationSucceeded: _succeeded,
    ev.OperationFailed: _failed,
    ev.OperationCancelled: _cancelled,
    ev.OperationCleanedUp: _cleaned_up,
}
_ENDS = frozenset({ev.OperationSucceeded, ev.OperationFailed, ev.OperationCancelled, ev.OperationCleanedUp})
