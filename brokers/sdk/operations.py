"""The engine of a broker's operations: each takes effect once, however often it is asked for.

*Long* operations run as tasks and answer an :class:`Outcome` at once; a finished one is kept on disk and repeated
for ever after. An operation that a restart of the broker interrupted is unknown afterwards, and the same request
starts it anew: handlers begin by removing what an interrupted run left. *Short* changes answer when they are done;
concurrent duplicates share one run. Operations with the same resource key run one after another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, TypeVar, cast

from brokers.sdk.errors import Explain, permanent_error, problem_of, temporary_error
from brokers.sdk.outcomes import OutcomeStore, Record
from brokers.sdk.progress import Reporter
from bus import tracing
from bus.metrics import count, observe
from schemas import metrics
from schemas.brokers import BytesDone, Outcome, Reply
from schemas.envelope import convert, to_raw
from schemas.problems import CalqueError, Problem, conflict, not_found

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Reply)
Work = Callable[[Reporter], Awaitable[Reply]]
PRUNE_SECONDS = 3600.0
CANCEL_ANSWER_SECONDS = 8.0
"""How long a cancel waits for the clean-up before it answers that the operation still runs."""
CANCEL_AGAIN_SECONDS = 90.0
"""When a cancelled operation that has not ended is cancelled once more: a cancellation can get lost in the code of
others (``asyncio.wait_for`` before Python 3.12). Clean-up after a cancellation must be over by then."""
CLOSE_AGAIN_SECONDS = 10.0


class Running(NamedTuple):
    """A long operation in this process."""

    operation: str
    task: asyncio.Task[Outcome]
    reporter: Reporter


class Key(NamedTuple):
    """Which request an operation is: its id, and the name of the broker operation."""

    id: str
    operation: str


class _Lock:
    """A lock and how many hold it or wait for it, so that it is forgotten with the last of them."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class OperationEngine:
    """Runs the operations of one broker. ``explain`` turns errors of its technology into problems."""

    def __init__(self, store: OutcomeStore, *, explain: Explain) -> None:
        self._store = store
        self._explain = explain
        self._running: dict[str, Running] = {}
        self._short: dict[str, tuple[str, asyncio.Task[Reply]]] = {}
        self._locks: dict[str, _Lock] = {}
        self._closing = False
        self._pruning: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """How many long operations are under way."""
        return len(self._running)

    async def open(self) -> None:
        """Forget old outcomes now and every hour from here on."""
        await asyncio.to_thread(self._store.prune)
        self._pruning = asyncio.create_task(self._prune_for_ever(), name="prune outcomes")

    async def close(self) -> None:
        """Stop what runs, waiting for its clean-up. Nothing is remembered of it: the same request resumes it."""
        self._closing = True
        tasks: list[asyncio.Task[Outcome] | asyncio.Task[Reply] | asyncio.Task[None]] = []
        tasks += [running.task for running in self._running.values()]
        tasks += [task for _, task in self._short.values()]
        tasks += [self._pruning] if self._pruning else []
        left = set(tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=CLOSE_AGAIN_SECONDS)

    @asynccontextmanager
    async def exclusively(self, resource: str | None) -> AsyncIterator[None]:
        """Hold ``resource`` alone; ``None`` holds nothing. First come, first served."""
        if resource is None:
            yield
            return
        entry = self._locks.setdefault(resource, _Lock())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._locks[resource]

    async def start(
        self,
        key: Key,
        work: Work,
        *,
        resource: str | None = None,
        tell: Callable[[BytesDone], None] = lambda _: None,
    ) -> Outcome:
        """Start the long operation, join it, or repeat its outcome. Raises ``conflict`` when the id was used for
        another kind of operation."""
        self._refuse_when_closing()
        if record := self._remembered(key):
            return record.outcome
        if running := self._running.get(key.id):
            _same_operation(key, running.operation)
            return _running_outcome(key.id, running.reporter)
        reporter = Reporter(tell=tell, clock=asyncio.get_running_loop().time)
        task = asyncio.create_task(self._run(key, work, resource, reporter), name=f"{key.operation} {key.id}")
        self._running[key.id] = Running(key.operation, task, reporter)
        task.add_done_callback(lambda done: self._forget(key.id, done))
        return _running_outcome(key.id, reporter)

    async def once(
        self,
        key: Key,
        work: Callable[[], Awaitable[R]],
        *,
        resource: str | None = None,
        remember: type[R] | None = None,
    ) -> R:
        """Run a short change; a duplicate that comes meanwhile gets the same answer.

        ``remember`` is given for changes that must not run again by the same id: their replies, which may hold no
        secrets, are kept like outcomes. Others must be such that running them again changes nothing.
        """
        self._refuse_when_closing()
        if record := self._remembered(key):
            if record.outcome.state == "cancelled":
                raise permanent_error("cancelled", f"{key.operation} was cancelled before it began", field="id")
            if remember is not None:
                return convert(record.outcome.result, remember)
        if found := self._short.get(key.id):
            operation, shared = found
            _same_operation(key, operation)
        else:
            shared = asyncio.create_task(self._run_once(key, work, resource, remember is not None))
            self._short[key.id] = (key.operation, shared)
            shared.add_done_callback(lambda done: self._forget_short(key.id, done))
        try:
            # a requester that goes away must not take the others' answer with it
            return cast(R, await asyncio.shield(shared))  # the same operation has the same reply type
        except asyncio.CancelledError:
            if shared.cancelled():
                raise _stopping() from None
            raise

    def status(self, id: str) -> Outcome:
        """How the operation ``id`` is; raises ``not_found``."""
        if running := self._running.get(id):
            return _running_outcome(id, running.reporter)
        if record := self._store.load(id):
            return record.outcome
        raise CalqueError(not_found("id", f"no operation {id} is known here", "send the request again"))

    async def cancel(self, id: str) -> Outcome:
        """Stop ``id`` and wait until what it did is removed; what has finished stays as it is. When that takes long
        the answer is ``running``, and the status tells the end. An unknown id is remembered as cancelled, so that its
        request does nothing when it comes late."""
        self._refuse_when_closing()
        if running := self._running.get(id):
            if not running.reporter.cancelling:
                running.reporter.cancelling = True
                running.task.cancel()
                self._cancel_again_later(id, running)
            await asyncio.wait({running.task}, timeout=CANCEL_ANSWER_SECONDS)
            if not running.task.done():
                return _running_outcome(id, running.reporter)
            if not running.task.cancelled():
                return running.task.result()
        if record := self._store.load(id):
            return record.outcome
        outcome = Outcome(id=id, state="cancelled")
        await self._save(Record(operation="", outcome=outcome))
        return outcome

    def _cancel_again_later(self, id: str, running: Running) -> None:
        def again() -> None:
            logger.warning(
                "%s %s has not ended %.0f s after it was cancelled", running.operation, id, CANCEL_AGAIN_SECONDS
            )
            running.task.cancel()
            self._cancel_again_later(id, running)

        timer = asyncio.get_running_loop().call_later(CANCEL_AGAIN_SECONDS, again)
        running.task.add_done_callback(lambda _: timer.cancel())

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise _stopping()

    def _remembered(self, key: Key) -> Record | None:
        record = self._store.load(key.id)
        if record is not None and record.operation:
            _same_operation(key, record.operation)
        return record

    async def _run(self, key: Key, work: Work, resource: str | None, reporter: Reporter) -> Outcome:
        outcome: Outcome
        began = time.monotonic()
        try:
            with tracing.request_span(f"operation {key.operation}", kind="internal", attributes={"calque.id": key.id}):
                async with self.exclusively(resource):
                    result = await work(reporter)
            outcome = Outcome(id=key.id, state="succeeded", progress=reporter.latest, result=to_raw(result))
        except asyncio.CancelledError:
            if not reporter.cancelling:
                raise
            outcome = Outcome(id=key.id, state="cancelled", progress=reporter.latest)
        except Exception as error:
            problem = self._problem(error, key)
            outcome = Outcome(id=key.id, state="failed", progress=reporter.latest, problem=problem)
        await self._save(Record(operation=key.operation, outcome=outcome))
        observe(metrics.BROKER_OPERATIONS, time.monotonic() - began, key.operation, outcome.state)
        if outcome.progress is not None:
            count(metrics.COPIED_BYTES, key.operation, by=outcome.progress.done)
        reporter.flush()
        ended = outcome.problem.sentence() if outcome.problem else outcome.state
        logger.info("%s %s: %s", key.operation, key.id, ended)
        return outcome

    async def _run_once(
        self, key: Key, work: Callable[[], Awaitable[Reply]], resource: str | None, remember: bool
    ) -> Reply:
        try:
            async with self.exclusively(resource):
                reply = await work()
        except Exception as error:
            raise CalqueError(self._problem(error, key)) from error
        if remember:
            outcome = Outcome(id=key.id, state="succeeded", result=to_raw(reply))
            await self._save(Record(operation=key.operation, outcome=outcome))
        return reply

    async def _save(self, record: Record) -> None:
        # a cancel that comes now is too late: the outcome stands
        saving = asyncio.create_task(asyncio.to_thread(self._store.save, record))
        while not saving.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({saving})
        saving.result()

    def _problem(self, error: Exception, key: Key) -> Problem:
        return problem_of(error, explain=self._explain, doing=f"{key.operation} {key.id}")

    def _forget(self, id: str, task: asyncio.Task[Outcome]) -> None:
        self._running.pop(id, None)
        if not task.cancelled() and (error := task.exception()):
            logger.error("the outcome of %s could not be kept", id, exc_info=error)

    def _forget_short(self, id: str, task: asyncio.Task[Reply]) -> None:
        self._short.pop(id, None)
        if not task.cancelled():
            task.exception()  # whoever still waits has it; nobody may be left to

    async def _prune_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            try:
                await asyncio.to_thread(self._store.prune)
            except OSError as error:
                logger.warning("old outcomes could not be removed: %s", error)


def _stopping() -> CalqueError:
    return temporary_error("stopping", "the broker is stopping", retry_after_seconds=2.0)


def _running_outcome(id: str, reporter: Reporter) -> Outcome:
    return Outcome(id=id, state="running", progress=reporter.latest)


def _same_operation(key: Key, operation: str) -> None:
    if operation != key.operation:
        raise CalqueError(conflict("id", f"{key.id} is the id of a {operation}", "use an id of its own"))
