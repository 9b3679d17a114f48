"""The steps of an operation as data: what the acceptance of an operation records and everybody can read."""

from __future__ import annotations

from schemas.base import Fact


class Step(Fact, frozen=True, kw_only=True):
    """One step of an operation's plan.

    ``action`` says what is done to ``part`` (a data service, an app service, a copy, a site ...). A step starts
    when all its ``needs`` are done. ``undo`` names the action that takes it back; steps are undone in reverse
    order of their needs when the operation fails or is cancelled. An action runs at most ``attempts`` times,
    each at most ``timeout_seconds``.
    """

    id: str
    action: str
    part: str
    needs: tuple[str, ...] = ()
    undo: str | None = None
    attempts: int = 5
    timeout_seconds: float = 120.0


def effect_id(operation: str, step: str, attempt: int) -> str:
    """The id of one effect of an operation, the same however often it is sent."""
    return f"{operation}/{step}/{attempt}"
