"""The saga runner: performs the effects of live operations and records what came of them.

What should be under way follows from the state alone (:func:`schemas.saga.react`); this class only makes it so. A
restarted agent loads its journal, asks again and goes on where it was: effects are idempotent by their ids.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import msgspec

from bus import tracing
from bus.metrics import count, observe
from bus.scope import scope
from schemas import metrics, saga, timers
from schemas.envelope import parse_timestamp
from schemas.events import Event
from schemas.operations import Step, effect_id
from schemas.problems import CalqueError, Problem, permanent, temporary
from schemas.traces import span_id_of
from site_agent.adapters.journal import Journal
from site_agent.domain import consequences
from site_agent.domain.site import BACK, Draft, Site

logger = logging.getLogger(__name__)

UNDO_SECONDS = 600.0
LAST_LOOK_SECONDS = 2.0
"""What an attempt gets whose time ran out while the agent was away: enough to hear of a result that is there."""
AGAIN_SECONDS = 1.0


class Performer(Protocol):
    """Who does what steps say."""

    async def perform(self, operation: saga.Operation, step: Step, attempt: int) -> dict[str, Any]:
        """Do it; raises :class:`CalqueError`."""

    async def undo(self, operation: saga.Operation, step: Step, attempt: int) -> None:
        """Take it back; raises :class:`CalqueError`."""

    async def stop_attempts(self, operation: saga.Operation, step: Step) -> None:
        """Make sure that no attempt at it goes on."""


Key = tuple[str, str, str, int]


class Runner:
    """Runs the live operations of one site.

    ``clock`` is the wall clock. Waits and deadlines end at moments that follow from stored events: a process that
    starts anew neither loses one nor begins one again.
    """

    def __init__(
        self,
        journal: Journal,
        performer: Performer,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._journal = journal
        self._performer = performer
        self._clock = clock
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._deadlines: dict[str, asyncio.Task[None]] = {}
        self._waiting: set[str] = set()
        self._stopping = False

    def resume(self) -> None:
        """Take up every live operation of the journal."""
        for operation in list(self._journal.site.live_operations()):
            self.drive(operation.id)

    async def stop(self) -> None:
        """Leave everything where it is; the next start goes on."""
        self._stopping = True
        tasks = [*self._tasks.values(), *self._deadlines.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drive(self, id: str) -> None:
        """Make what should be under way for operation ``id`` be under way, and nothing else."""
        operation = self._journal.site.operations.get(id)
        if operation is None or self._stopping:
            return
        if stopped := self._journal.site.stopped_for(operation):
            if id not in self._waiting:
                self._waiting.add(id)
                logger.error("operation %s waits: %s", id, stopped.sentence())
            return
        wanted: dict[Key, saga.Effect] = {
            (id, type(effect).__name__, effect.step.id, effect.attempt): effect for effect in saga.react(operation)
        }
        for key, task in self._tasks.items():
            if key[0] == id and key not in wanted and key[1] != "Undo":
                task.cancel()
        for key, effect in wanted.items():
            if key not in self._tasks:
                task = asyncio.create_task(self._effect(operation, effect, key), name="/".join(map(str, key)))
                self._tasks[key] = task
                task.add_done_callback(partial(self._ended, key))
        self._watch_deadline(operation)

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and (error := task.exception()):
            logger.error("the runner of %s failed", "/".join(map(str, key)), exc_info=error)

    async def _effect(self, operation: saga.Operation, effect: saga.Effect, key: Key) -> None:
        try:
            with scope(operation=operation.id, correlation=operation.accepted.parent or operation.id):
                await self._performed(operation, effect)
        except CalqueError as error:
            # What came of it could not be stored for now. Effects are idempotent: it is done, and recorded, again.
            logger.warning("%s could not be recorded: %s", "/".join(map(str, key)), error)
            if not error.problem.temporary:
                return
            await asyncio.sleep(AGAIN_SECONDS)
        self._tasks.pop(key, None)
        self.drive(operation.id)

    async def _performed(self, operation: saga.Operation, effect: saga.Effect) -> None:
        match effect:
            case saga.Do(step=step, attempt=attempt):
                with self._span("step", operation, step, attempt) as mark:
                    mark.problem = await self._do(operation, step, attempt)
            case saga.Retry(step=step, attempt=attempt, delay_seconds=delay):
                await asyncio.sleep(self._left(delay, operation, step.id))
                await self._record(operation.id, lambda now: saga.retried(now, step.id, attempt))
            case saga.Undo(step=step, attempt=attempt, delay_seconds=delay):
                await asyncio.sleep(self._left(delay, operation, step.id))
                await self._settle(operation.id, step)
                with self._span("undo", operation, step, attempt) as mark:
                    mark.problem = await self._undo(operation, step, attempt, seconds=delay + UNDO_SECONDS)

    def _span(
        self, kind: str, operation: saga.Operation, step: Step, attempt: int
    ) -> AbstractContextManager[tracing.Mark]:
        return tracing.span(
            f"{kind} {step.action}",
            parent=self._journal.trace_of(operation.id),
            span_id=span_id_of(kind, effect_id(operation.id, step.id, attempt)),
            attributes={
                "calque.operation.id": operation.id,
                "calque.step": step.id,
                "calque.part": step.part,
                "calque.attempt": attempt,
            },
        )

    async def _do(self, operation: saga.Operation, step: Step, attempt: int) -> str | None:
        """The code of the problem, if there was one."""
        result: dict[str, Any] = {}
        problem: Problem | None = None
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(self._left(step.timeout_seconds, operation, step.id), LAST_LOOK_SECONDS)):
                result = await self._performer.perform(operation, step, attempt)
        except TimeoutError:
            problem = temporary("timeout", f"no end within {step.timeout_seconds:.0f} s", field=step.part)
            await self._stop_late(operation, step)
        except Exception as error:
            problem = _problem_of(error, step)
        took = time.monotonic() - began
        observe(metrics.STEPS, took, step.action, "succeeded" if problem is None else "failed")
        if attempt > 1:
            count(metrics.RETRIES, step.action)
        if problem is None:
            problem = await self._succeeded(operation, step, attempt, result)
        if problem is not None:
            failure = problem
            logger.warning("%s %s attempt %d: %s", operation.id, step.id, attempt, failure.sentence())
            await self._record(operation.id, lambda now: saga.failed(now, step.id, attempt, failure))
        return problem.code if problem is not None else None

    async def _succeeded(
        self, operation: saga.Operation, step: Step, attempt: int, result: dict[str, Any]
    ) -> Problem | None:
        """Record it. The problem, when a result can never be stored: the step failed then."""
        try:
            await self._record(operation.id, lambda now: saga.succeeded(now, step.id, attempt, result))
        except CalqueError as error:
            if error.problem.temporary or error.problem.code == "unknown_event":
                raise
            return located(error.problem, step)
        return None

    async def _undo(self, operation: saga.Operation, step: Step, attempt: int, *, seconds: float) -> str | None:
        """The code of the problem, if there was one. Nothing is stored when an attempt begins: the first one does when
        the operation turns back or has undone what comes after ``step``, another when the one before has failed; its
        ``seconds`` count from there."""
        problem: Problem | None = None
        since = step.id if attempt > 1 else BACK
        try:
            async with asyncio.timeout(max(self._left(seconds, operation, since), LAST_LOOK_SECONDS)):
                await self._performer.undo(operation, step, attempt)
        except TimeoutError:
            problem = temporary("timeout", f"undoing did not end within {UNDO_SECONDS:.0f} s", field=step.part)
        except Exception as error:
            problem = _problem_of(error, step)
        if problem is None:
            await self._record(operation.id, lambda now: saga.undone(now, step.id))
        else:
            failure = problem
            logger.warning("%s undoing %s: %s", operation.id, step.id, failure.sentence())
            await self._record(operation.id, lambda now: saga.undo_failed(now, step.id, attempt, failure))
        return problem.code if problem is not None else None

    async def _stop_late(self, operation: saga.Operation, step: Step) -> None:
        try:
            async with asyncio.timeout(10.0):
                await self._performer.stop_attempts(operation, step)
        except (TimeoutError, CalqueError) as error:
            logger.warning("%s %s may still be under way: %s", operation.id, step.id, error)

    async def _settle(self, id: str, step: Step) -> None:
        """Wait until no effect of ``step`` runs in this process any more."""
        running = [task for key, task in self._tasks.items() if key[0] == id and key[2] == step.id and key[1] != "Undo"]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _record(self, id: str, decide: Callable[[saga.Operation], list[Event]]) -> None:
        def drafts(site: Site) -> list[Draft]:
            operation = site.operations.get(id)
            return consequences.expand(site, id, decide(operation)) if operation is not None else []

        # what was done must be recorded even when the runner is being stopped: the effect has happened
        await asyncio.shield(self._journal.record(drafts, operation=id))

    def _watch_deadline(self, operation: saga.Operation) -> None:
        watcher = self._deadlines.get(operation.id)
        if operation.outcome is not None or operation.phase != "running":
            if watcher is not None and watcher is not asyncio.current_task():
                watcher.cancel()
            self._deadlines.pop(operation.id, None)
        elif watcher is None:
            task = asyncio.create_task(self._expire(operation), name=f"deadline of {operation.id}")
            self._deadlines[operation.id] = task

    async def _expire(self, operation: saga.Operation) -> None:
        begun = parse_timestamp(self._journal.site.accepted_at[operation.id])
        seconds = operation.accepted.deadline_seconds
        await asyncio.sleep(timers.left(seconds, since=begun.timestamp(), now=self._clock().timestamp()))
        while True:
            try:
                await self._record(operation.id, lambda now: saga.give_up(now, saga.deadline_passed(seconds)))
            except CalqueError as error:
                logger.warning("%s: that its deadline passed could not be recorded: %s", operation.id, error)
                if not error.problem.temporary:
                    return
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                break
        self.drive(operation.id)

    def _left(self, seconds: float, operation: saga.Operation, step: str) -> float:
        """Of ``seconds`` after the last event about ``step``: its attempt began, or failed."""
        changed = self._journal.site.changed_at.get((operation.id, step))
        if changed is None:
            return seconds
        return timers.left(seconds, since=parse_timestamp(changed).timestamp(), now=self._clock().timestamp())


_FIELDS_OF_REQUESTS = frozenset({None, "copy", "id", "instance", "operation", "restore", "service", "service_id"})
"""Brokers name fields of their own requests; these mean nothing to whoever reads why an operation failed."""


def located(problem: Problem, step: Step) -> Problem:
    """``problem`` with the part that it is about: the data service, app service or copy of ``step``."""
    if problem.field is not None and step.part in problem.field.split("."):
        return problem
    field = step.part if problem.field in _FIELDS_OF_REQUESTS else f"{step.part}.{problem.field}"
    return msgspec.structs.replace(problem, field=field)


def _problem_of(error: Exception, step: Step) -> Problem:
    if isinstance(error, CalqueError):
        return located(error.problem, step)
    logger.error("step %s failed unexpectedly", step.id, exc_info=error)
    return permanent(
        "internal",
        f"{step.action} of {step.part} failed unexpectedly ({type(error).__name__})",
        field=step.part,
        remedy="see the agent's log",
    )
