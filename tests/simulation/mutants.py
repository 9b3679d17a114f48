"""Deliberate breaks of the product, each of which the simulator must notice within a number of seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from bus.events import NewEvent
from bus.records import Recorded
from hub.application.commands import CommandHandler as HubCommands
from hub.application.reactor import Reactor
from hub.application.sagas import Sagas
from hub.domain import children, claim
from schemas import events as ev
from schemas import saga
from schemas.operations import Step
from schemas.problems import CalqueError
from site_agent.application.actions import Actions
from site_agent.application.commands import CommandHandler
from site_agent.application.runner import Runner
from site_agent.domain import consequences, finding, plans
from site_agent.domain.site import Draft, Site
from tests.simulation.storage import SimStore
from tests.simulation.streams import Key, Stream

Patch = pytest.MonkeyPatch


class Mutant(NamedTuple):
    """A break, and within how many seeds it must be caught."""

    name: str
    apply: Callable[[Patch], None]
    seeds: int
    quick: bool = False
    """Whether a few seeds are enough, so that every test run tries it."""


def _without_undo(module: Any, function: str, *actions: str) -> Callable[[Patch], None]:
    """The plan of ``function`` without the compensations of ``actions``."""

    def apply(patch: Patch) -> None:
        real = getattr(module, function)

        def planned(*arguments: Any, **named: Any) -> tuple[Step, ...]:
            return tuple(
                msgspec.structs.replace(step, undo=None) if step.action in actions else step
                for step in real(*arguments, **named)
            )

        patch.setattr(module, function, planned)

    return apply


def site_removes_what_was_there(patch: Patch) -> None:
    _letting_go(patch, "delete", lambda step: msgspec.structs.replace(step, action=plans.DEPROVISION))


def site_removes_it_when_undone(patch: Patch) -> None:
    _letting_go(patch, "deploy", lambda step: msgspec.structs.replace(step, undo=plans.DEPROVISION))


def _letting_go(patch: Patch, function: str, wrong: Callable[[Step], Step]) -> None:
    """The plan of ``function`` with another end for data services that were there before."""
    real = getattr(plans, function)

    def planned(*arguments: Any, **named: Any) -> tuple[Step, ...]:
        steps = real(*arguments, **named)
        return tuple(wrong(step) if plans.DETACH in (step.action, step.undo) else step for step in steps)

    patch.setattr(plans, function, planned)


def site_skips_its_dedupe_check(patch: Patch) -> None:
    real = Site.apply

    def apply(self: Site, *arguments: Any, causation: str | None = None, **named: Any) -> None:
        real(self, *arguments, causation=None, **named)

    patch.setattr(Site, "apply", apply)


def site_forgets_the_thaw(patch: Patch) -> None:
    real = plans.save

    def save(*arguments: Any) -> tuple[Step, ...]:
        steps = real(*arguments)
        thaws = {step.id for step in steps if step.action == plans.THAW}
        prepares = tuple(step.id for step in steps if step.action == plans.PREPARE)
        return tuple(
            msgspec.structs.replace(step, needs=prepares) if thaws & set(step.needs) else step
            for step in steps
            if step.id not in thaws
        )

    patch.setattr(plans, "save", save)


def site_acknowledges_before_storing(patch: Patch) -> None:
    real = CommandHandler.handle
    kept: list[asyncio.Task[None]] = []

    async def handle(self: CommandHandler, delivery: Any) -> None:
        kept.append(asyncio.create_task(real(self, delivery)))

    patch.setattr(CommandHandler, "handle", handle)


def site_does_not_resume(patch: Patch) -> None:
    patch.setattr(Runner, "resume", lambda self: None)


def site_believes_a_lapsed_hold(patch: Patch) -> None:
    real = Actions._thaw

    async def thaw(self: Actions, call: Any) -> dict[str, Any]:
        try:
            return await real(self, call)
        except CalqueError as error:
            if error.problem.code != "quiesce_lapsed":
                raise
            return {}

    patch.setattr(Actions, "_thaw", thaw)


def site_gives_up_undoing(patch: Patch) -> None:
    def undo_failed(operation: saga.Operation, step: str, attempt: int, problem: Any) -> list[ev.Event]:
        return saga.undone(operation, step)

    patch.setattr(saga, "undo_failed", undo_failed)


def site_does_not_record_locations(patch: Patch) -> None:
    real = consequences._about_image

    def about(*arguments: Any) -> Iterator[Draft]:
        return (draft for draft in real(*arguments) if draft.aggregate != "location")

    patch.setattr(consequences, "_about_image", about)


def site_leaves_the_image_of_a_failed_save(patch: Patch) -> None:
    real = consequences._about_image

    def about(*arguments: Any) -> Iterator[Draft]:
        return (draft for draft in real(*arguments) if not isinstance(draft.event, ev.ImageFailed))

    patch.setattr(consequences, "_about_image", about)


def appends_are_not_guarded(patch: Patch) -> None:
    def mismatch(self: Stream, expected: Mapping[Key, int]) -> None:
        return None

    patch.setattr(Stream, "mismatch", mismatch)


def events_of_a_decision_are_stored_one_by_one(patch: Patch) -> None:
    real = SimStore.append

    async def append(self: SimStore, events: Sequence[NewEvent], *, expected: Mapping[Key, int]) -> list[Recorded]:
        stored: list[Recorded] = []
        last = dict(expected)
        for event in events:
            key = (event.aggregate, event.id)
            stored += await real(self, [event], expected={key: last[key]})
            last[key] = stored[-1].sequence
        return stored

    patch.setattr(SimStore, "append", append)


def hub_does_not_withdraw(patch: Patch) -> None:
    async def nothing(self: Reactor, *arguments: Any, **named: Any) -> None:
        return None

    patch.setattr(Reactor, "_withdraw", nothing)


def hub_ignores_claims(patch: Patch) -> None:
    patch.setattr(claim, "evolve", lambda state, event: claim.ClaimState())


def hub_believes_that_a_child_is_undone(patch: Patch) -> None:
    def undone(operation: saga.Operation, state: saga.StepState, *arguments: Any) -> list[ev.Event]:
        return saga.undone(operation, state.step.id)

    patch.setattr(children, "_undone", undone)


def hub_forgets_what_it_passed_on(patch: Patch) -> None:
    real = HubCommands._record

    async def record(self: HubCommands, envelope: Any, event: Any) -> bool:
        return isinstance(event, ev.CommandForwarded) or await real(self, envelope, event)

    patch.setattr(HubCommands, "_record", record)


def hub_has_no_timers(patch: Patch) -> None:
    async def run(self: Sagas) -> None:
        return None

    patch.setattr(Sagas, "run", run)


def site_takes_what_anybody_signed(patch: Patch) -> None:
    real = finding.judge

    def judge(site: Site, listed: Any, listings: Any, trusted: Any) -> Any:
        return real(site, listed, listings, {listed.signed_by})

    patch.setattr(finding, "judge", judge)


def site_misses_no_copy(patch: Patch) -> None:
    patch.setattr(finding, "missing", lambda site, listings: [])


MUTANTS: tuple[Mutant, ...] = (
    Mutant("what anybody signed is taken", site_takes_what_anybody_signed, 40, quick=True),
    Mutant("a copy that is gone stays on record", site_misses_no_copy, 100),
    Mutant("a site skips its dedupe check", site_skips_its_dedupe_check, 40, quick=True),
    Mutant("a site acknowledges a command before it is stored", site_acknowledges_before_storing, 150),
    Mutant("a restarted agent does not resume", site_does_not_resume, 60, quick=True),
    Mutant("a database is not removed when a deployment is undone", _without_undo(plans, "deploy", "provision"), 150),
    Mutant(
        "an app service is not removed when a deployment is undone",
        _without_undo(plans, "deploy", "deploy"),
        150,
        quick=True,
    ),
    Mutant("what was there before is removed with its app", site_removes_what_was_there, 60, quick=True),
    Mutant("what was there before is removed when a deployment is undone", site_removes_it_when_undone, 300),
    Mutant("a copy is not dropped when a save is undone", _without_undo(plans, "save", "commit"), 400),
    Mutant("a staged copy is not removed when a save is undone", _without_undo(plans, "save", "copy"), 300),
    Mutant("writers are not thawed when a save is undone", _without_undo(plans, "save", "quiesce"), 300),
    Mutant("the hook after a copy does not run when a save is undone", _without_undo(plans, "save", "arm"), 300),
    Mutant("a moment is not discarded when a save is undone", _without_undo(plans, "save", "prepare", "stage"), 300),
    Mutant("writers are not thawed after the moments are fixed", site_forgets_the_thaw, 40, quick=True),
    Mutant("a hold that lapsed counts as held", site_believes_a_lapsed_hold, 1000),
    Mutant("an undo that failed counts as done", site_gives_up_undoing, 150),
    Mutant("where a copy lies is not recorded", site_does_not_record_locations, 40, quick=True),
    Mutant("the image of a failed save is left saving", site_leaves_the_image_of_a_failed_save, 100),
    Mutant("an append is not guarded by the expected sequence", appends_are_not_guarded, 200),
    Mutant(
        "the events of one decision are stored one by one", events_of_a_decision_are_stored_one_by_one, 150, quick=True
    ),
    Mutant("the catalog keeps an image that was never saved", hub_does_not_withdraw, 60, quick=True),
    Mutant("a taken name is taken again", hub_ignores_claims, 100),
    Mutant("the hub believes that a child is undone", hub_believes_that_a_child_is_undone, 300),
    Mutant("the hub forgets what it passed on", hub_forgets_what_it_passed_on, 1500),
    Mutant("the hub has no timers", hub_has_no_timers, 400),
)
