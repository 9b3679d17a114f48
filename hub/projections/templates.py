"""Templates in the order of their application."""

from __future__ import annotations

import msgspec

from schemas.events import Event, TemplateApplied


class TemplateRow(msgspec.Struct, kw_only=True):
    """A template version as it was applied; ``command`` is the id of the command that did it."""

    applied: TemplateApplied
    applied_at: str
    command: str | None = None


class Templates:
    """All template versions by their aggregate's id."""

    def __init__(self) -> None:
        self.rows: dict[str, TemplateRow] = {}

    def apply(
        self, _writer: str, id: str, event: Event, time: str, _operation: str | None, causation: str | None
    ) -> None:
        """An event of a template."""
        if isinstance(event, TemplateApplied):
            self.rows.setdefault(id, TemplateRow(applied=event, applied_at=time, command=causation))

    def newest(self, name: str) -> str | None:
        """The id of the version of ``name`` that was applied last."""
        ids = [id for id, row in self.rows.items() if row.applied.template.name == name]
        return ids[-1] if ids else None
