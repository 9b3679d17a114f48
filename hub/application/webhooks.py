"""Defining webhooks. Deliveries are not the hub's: a process of their own makes them (``hub.webhooks``)."""

from __future__ import annotations

from bus.events import Conflict
from hub.application.aggregates import Loaded, accepting, append, load
from hub.application.context import TRIES, Context, contended
from hub.application.outcome import Outcome
from hub.domain import webhook as domain
from hub.domain.received import Received
from hub.domain.webhook import Webhook
from schemas.commands import Answer
from schemas.problems import Problem


async def change(context: Context, received: Received) -> Outcome:
    """``webhook.add``, ``remove``, ``pause``, ``resume``, ``replay``, ``rotate``"""
    name = received.aggregate_id
    for _ in range(TRIES):
        loaded = await load(context.events, "webhook", name)
        if loaded.caused_by(received.id):
            return Answer(command=received.id, state="accepted")
        events = domain.decide(_state(loaded), received.command, name=name, by=received.by)
        if isinstance(events, Problem):
            return events
        try:
            appended = await append(
                context.events,
                accepting(received),
                (loaded, events),
                causation=received.id,
                correlation=received.envelope.correlationid,
            )
        except Conflict:
            continue
        await context.projector.seen(appended)
        return Answer(command=received.id, state="accepted")
    raise contended(f"webhook {name}")


def _state(loaded: Loaded) -> Webhook | None:
    state: Webhook | None = None
    for recorded, event in zip(loaded.readable, loaded.events, strict=True):
        state = domain.evolve(state, event, key=recorded.envelope.causationid or "")
    return state
