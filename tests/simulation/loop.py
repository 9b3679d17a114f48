"""A deterministic event loop in virtual time, and the processes that live on it.

The real asynchronous code runs on it unchanged. Nothing waits: when no callback is ready, time jumps to the next
timer. Every callback belongs to the process in whose context it was made. Within a process callbacks run in the order
in which they became ready, as asyncio promises; which process runs next is the seed's choice. A process is killed
between any two of its callbacks: its tasks end, and whatever they still try has no effect.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events, futures
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

START_SECONDS = 1000.0
REAP_ROUNDS = 100
WAKE: Any = futures._set_result_unless_cancelled  # type: ignore[attr-defined]
"""What ends a sleep."""
THREAD_SECONDS = 0.0004
"""What a call in a thread takes."""


class Stuck(Exception):
    """Nothing is ready and no timer is set, or the run takes more callbacks than it may."""


class Process:
    """One run of a program. ``dead`` processes have no effect on anything any more."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.dead = False
        self.doomed = False
        """It is dead when the present callback is through."""
        self.steps = 0
        self.frozen = False
        """It does nothing for now, and knows nothing of that when it goes on."""
        self.cut_off = False
        """It reaches no server, and no server reaches it."""
        self.fuse = 0
        """The process is killed after so many more callbacks; 0 for never."""
        self.on_fuse: Callable[[], None] = lambda: None
        self.ready: deque[Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        self._many = 64
        self._loop = loop
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """A task of this process."""
        return self._loop.create_task(work, name=name, context=self.context.copy())

    def owns(self, task: asyncio.Task[Any]) -> None:
        """``task`` is one of this process."""
        self._tasks.append(task)
        if len(self._tasks) > self._many:
            self._tasks = self.unfinished()
            self._many = 2 * len(self._tasks) + 64

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def check(self) -> None:
        """Raises in a process that was killed: what it does from here on never happened."""
        if self.dead:
            raise asyncio.CancelledError

    def kill(self) -> None:
        """End it as soon as the present callback is through."""
        self.doomed = True
        self._loop.doomed.append(self)


PROCESS: ContextVar[Process] = ContextVar("process")


class Handle:
    """A callback that is to run in the context of its process. Leaner than asyncio's, which it stands in for."""

    __slots__ = ("_when", "args", "callback", "cancelled_", "context", "process")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context, when: float = 0.0
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process = context[PROCESS]
        self.cancelled_ = False
        self._when = when

    def cancel(self) -> None:
        """It does not run."""
        self.cancelled_ = True

    def cancelled(self) -> bool:
        """Whether it is not to run."""
        return self.cancelled_

    def when(self) -> float:
        """When a timer is due."""
        return self._when


class SimLoop(base_events.BaseEventLoop):
    """``chance`` chooses which process runs next."""

    def __init__(self, chance: Random, *, most_steps: int) -> None:
        super().__init__()
        self._now = START_SECONDS
        self._random = chance.random
        self._timers: list[tuple[float, int, Handle]] = []
        self._timers_set = 0
        self._waiting: list[Process] = []
        self._ending: Process | None = None
        self._rest: deque[Handle] = deque()
        self._most_steps = most_steps
        self.steps = 0
        self.doomed: list[Process] = []
        self.failures: list[str] = []
        self.set_task_factory(_make_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._note)
        self.root = Process(self, "world")
        """What no process of the product does: the network, the servers, fate."""

    def time(self) -> float:
        return self._now

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` in the world's own context until it ends."""

        async def begin() -> T:
            return await main

        return self.root.context.copy().run(lambda: self.run_until_complete(self.root.spawn(begin(), "main")))

    def rest(self) -> None:
        """The run is over: what is left ends, and may take the callbacks that it needs."""
        self._most_steps = self.steps + self._most_steps
        self.failures = []
        for task in self.root.unfinished():
            task.cancel()

    def at(self, delay: float, what: Callable[..., object], *arguments: object) -> Handle:
        """Call ``what`` in the world's context after ``delay`` seconds, whoever lives by then."""
        return self.call_later(delay, what, *arguments, context=self.root.context)

    def freeze(self, process: Process) -> None:
        """Stop it between two of its callbacks, as a signal or a long pause of its machine does."""
        if process.dead or process.frozen:
            return
        if process.ready:
            self._waiting.remove(process)
        process.frozen = True

    def unfreeze(self, process: Process) -> None:
        """It goes on, with all that became due meanwhile."""
        if process.dead or not process.frozen:
            return
        process.frozen = False
        if process.ready:
            self._waiting.append(process)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Threads take a moment of virtual time, and end with their process."""
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(THREAD_SECONDS, call)
        return future

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, copy_context() if context is None else context)
        self._enqueue(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, copy_context() if context is None else context, when)
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, handle))
        return handle

    def _enqueue(self, handle: Handle) -> None:
        process = handle.process
        if process.dead:
            if process is self._ending:
                self._rest.append(handle)
            return
        if not process.ready and not process.frozen:
            self._waiting.append(process)
        process.ready.append(handle)

    def _run_once(self) -> None:
        """Callback after callback until somebody stops the loop."""
        timers, waiting, chance, pop = self._timers, self._waiting, self._random, heapq.heappop
        root = self.root
        while not self._stopping:  # type: ignore[attr-defined]
            while timers and timers[0][2].cancelled_:
                pop(timers)
            if not waiting:
                if not timers:
                    raise Stuck("nothing is ready and nothing is due")
                self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= self._now:
                timer = pop(timers)[2]
                if timer.cancelled_:
                    continue
                if timer.process is root or timer.callback is WAKE:
                    # Nobody's turn: a message arrives, or somebody who slept has a turn again.
                    self.steps += 1
                    if not timer.process.dead:
                        self._call_here(timer)
                else:
                    self._enqueue(timer)
            if not waiting:
                continue
            index = int(chance() * len(waiting)) if len(waiting) > 1 else 0
            process = waiting[index]
            handle = process.ready.popleft()
            if not process.ready:
                waiting[index] = waiting[-1]
                waiting.pop()
            if not handle.cancelled_:
                self.steps += 1
                process.steps += 1
                if self.steps > self._most_steps:
                    raise Stuck(f"no end after {self.steps} callbacks, at {self._now - START_SECONDS:.1f} s")
                self._call(handle)
                if process.fuse:
                    process.fuse -= 1
                    if not process.fuse:
                        process.on_fuse()
            while self.doomed:
                self._end(self.doomed.pop())

    def _call_here(self, handle: Handle) -> None:
        """Call what needs no context but the world's, in which the loop itself runs."""
        try:
            handle.callback(*handle.args)
        except Exception as error:
            self.call_exception_handler({"message": f"callback {handle.callback}", "exception": error})

    def _call(self, handle: Handle) -> None:
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:
            self.call_exception_handler({"message": f"callback {handle.callback}", "exception": error})

    def _end(self, process: Process) -> None:
        """End a process: its tasks are cancelled until none is left; nobody else runs meanwhile."""
        if process.dead:
            return
        process.dead = True
        self._ending, self._rest = process, deque(process.ready)
        if process.ready and not process.frozen:
            self._waiting.remove(process)
        process.ready.clear()
        try:
            for _ in range(REAP_ROUNDS):
                left = process.unfinished()
                if not left:
                    break
                for task in left:
                    task.cancel()
                while self._rest:
                    handle = self._rest.popleft()
                    if not handle.cancelled_:
                        self._call(handle)
            else:
                self.failures.append(f"{process.name} can't be ended: {[task.get_name() for task in left]}")
        finally:
            self._ending = None

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        process = PROCESS.get(self.root)
        if not process.dead:
            self.failures.append(f"{process.name}: {context.get('message')}: {context.get('exception')!r}")

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody needs to be woken."""

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        """Generators end with their tasks; what the garbage collector does must not be seen."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """See above."""


def _make_task(loop: SimLoop, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
    task = asyncio.Task(work, loop=loop, context=context)
    process = context[PROCESS] if context is not None else PROCESS.get()
    process.owns(task)
    return task
