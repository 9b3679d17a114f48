"""Deliberate breaks of the site's agent: what it decides, its sagas, its journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from schemas import events as ev
from schemas import saga
from schemas.operations import Step
from schemas.problems import CalqueError
from site_agent.adapters.journal import Journal
from site_agent.application import commands
from site_agent.application.actions import Actions
from site_agent.application.bindings import Bindings
from site_agent.application.commands import CommandHandler
from site_agent.application.runner import Runner
from site_agent.domain import consequences, finding, plans
from site_agent.domain.site import Draft, Site

Patch = pytest.MonkeyPatch


def without_undo(module: Any, function: str, *actions: str) -> Callable[[Patch], None]:
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


def site_keeps_what_was_staged(patch: Patch) -> None:
    """Undone, a save lets go of what lies at the data service brokers, and of nothing in the repositories."""
    real = plans.save

    def planned(*arguments: Any, **named: Any) -> tuple[Step, ...]:
        less: dict[str | None, str | None] = {plans.UNSTAGE: plans.DISCARD, plans.ABORT: None}
        return tuple(
            msgspec.structs.replace(step, undo=less.get(step.undo, step.undo)) for step in real(*arguments, **named)
        )

    patch.setattr(plans, "save", planned)


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


def site_carries_out_what_has_expired(patch: Patch) -> None:
    patch.setattr(commands, "expired", lambda *_arguments, **_named: None)


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


def site_takes_what_anybody_signed(patch: Patch) -> None:
    real = finding.judge

    def judge(site: Site, listed: Any, listings: Any, trusted: Any) -> Any:
        return real(site, listed, listings, {listed.signed_by})

    patch.setattr(finding, "judge", judge)


def site_misses_no_copy(patch: Patch) -> None:
    patch.setattr(finding, "missing", lambda site, listings: [])


def site_fixes_moments_while_writers_write(patch: Patch) -> None:
    real = plans.save

    def save(*arguments: Any) -> tuple[Step, ...]:
        return tuple(
            msgspec.structs.replace(step, needs=()) if step.action == plans.PREPARE else step
            for step in real(*arguments)
        )

    patch.setattr(plans, "save", save)


def site_saves_before_its_copies_are_committed(patch: Patch) -> None:
    real = plans.save

    def save(*arguments: Any) -> tuple[Step, ...]:
        return tuple(
            msgspec.structs.replace(step, needs=()) if step.action == plans.RECORD else step
            for step in real(*arguments)
        )

    patch.setattr(plans, "save", save)


def site_goes_on_without_having_stored(patch: Patch) -> None:
    real = Journal._append

    async def append(self: Journal, *arguments: Any, **named: Any) -> Any:
        try:
            return await real(self, *arguments, **named)
        except CalqueError:
            return []

    patch.setattr(Journal, "_append", append)


def site_keeps_the_secrets_of_a_binding(patch: Patch) -> None:
    patch.setattr(Bindings, "_references", lambda self, instance, part: [])


def site_records_a_failure_as_success(patch: Patch) -> None:
    def failed(operation: saga.Operation, step: str, attempt: int, problem: Any) -> list[ev.Event]:
        return saga.succeeded(operation, step, attempt, {})

    patch.setattr(saga, "failed", failed)
