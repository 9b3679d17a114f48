"""Webhooks as they are defined. How far their deliveries are is known to the process that makes them."""

from __future__ import annotations

from hub.domain.webhook import Webhook, evolve
from schemas.events import Event, WebhookAdded
from schemas.webhooks import WebhookView


class Webhooks:
    """Webhooks by name, and since when they are there; ``commands`` are those that changed one."""

    def __init__(self) -> None:
        self.rows: dict[str, Webhook] = {}
        self.added_at: dict[str, str] = {}
        self.commands: set[str] = set()

    def apply(
        self, _writer: str, name: str, event: Event, time: str, _operation: str | None, causation: str | None
    ) -> None:
        """An event of the webhook ``name``."""
        if causation is not None:
            self.commands.add(causation)
        if isinstance(event, WebhookAdded):
            self.added_at[name] = time
        state = evolve(self.rows.get(name), event, key=causation or "")
        if state is None:
            self.rows.pop(name, None)
        else:
            self.rows[name] = state

    def views(self, name: str | None = None) -> tuple[WebhookView, ...]:
        """By name."""
        return tuple(
            WebhookView(
                name=each,
                spec=row.spec,
                state="paused" if row.paused else "active",
                reason=row.reason,
                generation=row.generation,
                added_by=row.by.principal,
                added_at=self.added_at[each],
            )
            for each, row in sorted(self.rows.items())
            if name in (None, each)
        )
