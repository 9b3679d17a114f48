"""Judges the hooks of a run: what was called, from what the platforms remember and what the operations came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from site_agent.domain import plans
from tests.faults.fold import Fold
from tests.simulation.world import World


def hooks_called(world: World, fold: Fold, site: str) -> Iterator[str]:
    """What ran before a copy has its counterpart after it, and a restored app runs only when its hooks have run."""
    called: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for phase, caller, _instance, service in world.disks[site].platform.hooks:
        called[caller].append((phase, service))
    for id, calls in called.items():
        for phase, service in set(calls):
            last = max(at for at, call in enumerate(calls) if call == (phase, service))
            if phase == plans.BEFORE_COPY and (plans.AFTER_COPY, service) not in calls[last:]:
                yield f"{site}: before_copy of {service} was called for {id}, and after_copy never after it"
    for (where, id), operation in fold.operations.items():
        if where != site or operation.state != "succeeded":
            continue
        wanted = {
            (step.action, step.part)
            for step in operation.accepted.steps
            if step.action in (plans.BEFORE_COPY, plans.AFTER_COPY, plans.BEFORE_RESTORE, plans.AFTER_RESTORE)
        }
        for phase, service in sorted(wanted - set(called[id])):
            yield f"{site}: {operation.accepted.kind} {id} succeeded, and {phase} of {service} was never called"
