"""Which events a webhook wants, as subjects for its consumer and as a question about one event. Pure."""

from __future__ import annotations

from bus.records import Recorded
from schemas.events import Event
from schemas.webhooks import WebhookSpec

EVERYTHING = "calque.evt.>"


def subjects(spec: WebhookSpec) -> list[str]:
    """Filters for the consumer: the narrowest that do not overlap, which the server refuses."""
    kinds = [(kind.partition(".")[0], kind.partition(".")[2] or "*") for kind in spec.types] or [("*", "*")]
    found = sorted(
        {f"calque.evt.{site}.{aggregate}.*.{event}" for site in spec.sites or ("*",) for aggregate, event in kinds}
    )
    if len(found) > 1 and any(_overlap(one, other) for one in found for other in found if one < other):
        return [EVERYTHING]
    return found


def wants(spec: WebhookSpec, event: Recorded) -> bool:
    """Whether the event is of a wanted type and site; apps are another question."""
    if spec.sites and event.writer not in spec.sites:
        return False
    kind = event.event.EVENT if isinstance(event.event, Event) else _name(event)
    return not spec.types or any(_matches(wanted, event.aggregate, kind) for wanted in spec.types)


def _matches(wanted: str, aggregate: str, event: str) -> bool:
    first, _, second = wanted.partition(".")
    return first in ("*", aggregate) and (second or "*") in ("*", event)


def _name(event: Recorded) -> str:
    """The name in a type that this version does not know: ``calque.event.<aggregate>.<name>.v1``."""
    parts = event.envelope.type.split(".")
    return parts[3] if len(parts) > 4 else ""


def _overlap(one: str, other: str) -> bool:
    return all(a == b or "*" in (a, b) for a, b in zip(one.split("."), other.split("."), strict=True))
