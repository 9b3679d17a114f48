"""Operations of hub and sites, and how commands were answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from schemas import saga
from schemas.events import (
    CancelRequested,
    CommandRejected,
    Event,
    OperationAccepted,
    OperationCancelled,
    OperationFailed,
    OperationSucceeded,
    StepFailed,
    StepStarted,
    StepSucceeded,
    StepUndoFailed,
    StepUndone,
)
from schemas.saga import Operation


class OperationRow(msgspec.Struct, kw_only=True):
    """An operation with the times that its events carry; ``changed`` is when each step last changed."""

    writer: str
    id: str
    operation: Operation | None = None
    created_at: str = ""
    ended_at: str = ""
    started: dict[str, str] = {}
    ended: dict[str, str] = {}
    changed: dict[str, str] = {}


class CommandRow(msgspec.Struct, kw_only=True):
    """A command that started no operation of its own: rejected, or a cancel that was accepted."""

    writer: str
    rejected: CommandRejected | None = None
    cancels: str | None = None


class Operations:
    """All operations by writer and id."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], OperationRow] = {}
        self.commands: dict[tuple[str, str], CommandRow] = {}
        self.by_id: dict[str, set[str]] = {}
        self.children: dict[str, set[tuple[str, str]]] = {}
        self.live: set[tuple[str, str]] = set()

    def apply(self, writer: str, id: str, event: Event, *, time: str, causation: str | None) -> None:
        """An event of an operation."""
        key = (writer, id)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = OperationRow(writer=writer, id=id)
            self.by_id.setdefault(id, set()).add(writer)
        before = row.operation
        row.operation = saga.evolve(before, id, event)
        match event:
            case OperationAccepted(parent=parent):
                row.created_at = time
                if before is not None and before.accepted.parent is not None:
                    self.children[before.accepted.parent].discard(key)
                if parent is not None:
                    self.children.setdefault(parent, set()).add(key)
            case StepStarted(step=step):
                row.started[step] = row.changed[step] = time
                row.ended.pop(step, None)
            case StepSucceeded(step=step) | StepFailed(step=step) | StepUndone(step=step):
                row.ended[step] = row.changed[step] = time
            case StepUndoFailed(step=step):
                row.changed[step] = time
            case OperationSucceeded() | OperationFailed() | OperationCancelled():
                row.ended_at = time
            case CancelRequested() if causation is not None:
                self.commands[writer, causation] = CommandRow(writer=writer, cancels=id)
                self.by_id.setdefault(causation, set()).add(writer)
        if row.operation is not None and row.operation.live:
            self.live.add(key)
        else:
            self.live.discard(key)

    def apply_command(self, writer: str, id: str, event: Event) -> None:
        """An event of a command."""
        if isinstance(event, CommandRejected):
            self.commands[writer, id] = CommandRow(writer=writer, rejected=event)
            self.by_id.setdefault(id, set()).add(writer)

    def index(self) -> None:
        """Make what follows from the rows, after they were loaded."""
        for key in (*self.rows, *self.commands):
            self.by_id.setdefault(key[1], set()).add(key[0])
        for key, row in self.rows.items():
            if row.operation is None:
                continue
            if row.operation.live:
                self.live.add(key)
            if row.operation.accepted.parent is not None:
                self.children.setdefault(row.operation.accepted.parent, set()).add(key)

    def get(self, writer: str, id: str) -> OperationRow | None:
        """One operation of one writer."""
        return self.rows.get((writer, id))

    def find(self, id: str) -> list[OperationRow]:
        """The operations with this id: one, unless two sites claim the same."""
        rows = (self.rows.get((writer, id)) for writer in sorted(self.by_id.get(id, ())))
        return [row for row in rows if row is not None and row.operation is not None]

    def commands_with(self, id: str) -> list[CommandRow]:
        """What is known of the command ``id``, besides operations."""
        rows = (self.commands.get((writer, id)) for writer in sorted(self.by_id.get(id, ())))
        return [row for row in rows if row is not None]

    def live_rows(self) -> Iterator[OperationRow]:
        """The operations that have something left to do."""
        for key in sorted(self.live):
            yield self.rows[key]

    def using_image(self, image: str) -> list[str]:
        """Live operations that read or write an image, other than its deletion."""
        return [
            row.id
            for row in self.live_rows()
            if row.operation is not None
            and row.operation.outcome is None
            and image in _images_of(row.operation.accepted)
        ]


def _images_of(accepted: OperationAccepted) -> set[str]:
    request: dict[str, Any] = accepted.request
    content = request.get("content")
    named = {accepted.target, request.get("image"), content.get("image") if isinstance(content, dict) else None}
    return {each for each in named if isinstance(each, str)}
