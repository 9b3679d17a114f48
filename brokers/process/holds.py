"""Holding a service still: pauses, and the hooks by which it quiesces and thaws.

All that decides whether a hold was unbroken is on record before it is needed, so the answer is the same after a
restart of the broker; whatever is in doubt counts as broken. Times are seconds of the boot's monotonic clock, which
all processes share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

import msgspec

from brokers.process import processes
from brokers.process.exits import ExitWatch
from brokers.process.guard import READY
from brokers.process.hooks import ServiceHooks, check_hook
from brokers.process.processes import ProcessId
from brokers.process.python_child import spawn
from brokers.process.records import Pause, Quiesce
from brokers.process.run import ServiceRun
from brokers.process.supervision import Supervision
from brokers.sdk.errors import temporary_error
from schemas.brokers import ExecHook, Held, PauseService, ResumeService
from schemas.problems import CalqueError, invalid

logger = logging.getLogger(__name__)

_FREEZE_SECONDS = 5.0
_GUARD_SECONDS = 5.0
_THAW_AGAIN_SECONDS = 1.0


class Holds:
    """The holds of one service."""

    def __init__(self, service: Supervision, hooks: ServiceHooks) -> None:
        self._service = service
        self._hooks = hooks
        self._pausing = asyncio.Lock()
        self._hooking = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None
        self._thawing: asyncio.Task[None] | None = None
        self._guards: dict[ProcessId, ExitWatch] = {}

    # --- pauses

    async def restore(self) -> None:
        """After a start of the broker: end what is overdue, and keep the deadline of what is not."""
        quiesce = self._service.record.quiesce
        if quiesce is not None and quiesce.held is None:
            self._thaw_by_deadline(quiesce)
        pause = self._service.record.pause
        if pause is None or pause.held is not None:
            return
        if not pause.acknowledged or _is_over(pause) or not processes.is_alive(pause.guard):
            async with self._pausing:
                await self._end(pause)
        else:
            self._timer = asyncio.create_task(self._at_deadline(pause))

    async def pause(self, request: PauseService) -> Held:
        """Freeze all of the service. Raises ``busy`` during another pause, ``service_not_running``, ``not_frozen``."""
        _check_deadline(request.deadline_seconds)
        async with self._pausing:
            service = self._service
            known = service.record.pause
            if known is not None and known.held is None:
                if known.id == request.id and known.acknowledged and not _is_over(known):
                    return Held(held=True)
                if known.id != request.id and not _is_over(known):
                    left = known.deadline - time.monotonic()
                    raise temporary_error("busy", "the service is paused by another request", retry_after_seconds=left)
                await self._end(known)
            if known is not None and known.id == request.id and known.acknowledged:
                return Held(held=False, message="that pause is over")
            run = self._running()
            return await self._freeze(request, run)

    async def resume(self, request: ResumeService) -> Held:
        """Let the service go on."""
        async with self._pausing:
            pause = self._service.record.pause
            if pause is None or (request.pause and request.pause != pause.id):
                return Held(held=False, message="no such pause is on record")
            if pause.held is None:
                return _told(await self._end(pause))
            if not request.pause:
                return Held(held=False, message="the service was not paused")
            return _told(pause)

    async def release(self) -> None:
        """End a pause because the service is stopped or removed."""
        async with self._pausing:
            pause = self._service.record.pause
            if pause is not None and pause.held is None:
                await self._end(pause, broken=True)

    async def close(self) -> None:
        """Watch no longer. A pause goes on; its guard ends it at the deadline."""
        watching = {task for task in (self._timer, self._thawing) if task is not None}
        for task in watching:
            task.cancel()
        if watching:
            await asyncio.wait(watching)
        for watch in self._guards.values():
            watch.close()

    async def _freeze(self, request: PauseService, run: ServiceRun) -> Held:
        service = self._service
        service.files.pause_over.unlink(missing_ok=True)
        deadline = time.monotonic() + request.deadline_seconds
        guard = await self._start_guard(run, deadline)
        pause = Pause(id=request.id, run=run.run, boot=processes.boot_id(), deadline=deadline, guard=guard)
        service.keep(pause=pause)
        try:
            frozen = await run.processes().freeze(deadline_seconds=min(_FREEZE_SECONDS, request.deadline_seconds))
        except asyncio.CancelledError:
            await self._end(pause, broken=True)
            raise
        if not frozen:
            await self._end(pause, broken=True)
            raise temporary_error("not_frozen", f"not all of {service.files.service} stood still in time")
        pause = msgspec.structs.replace(pause, acknowledged=True)
        service.keep(pause=pause)
        self._timer = asyncio.create_task(self._at_deadline(pause))
        return Held(held=True)

    async def _start_guard(self, run: ServiceRun, deadline: float) -> ProcessId:
        files = self._service.files
        leader = [str(run.process.pid), str(run.process.start)]
        reading, writing = os.pipe()
        try:
            pid = spawn(
                "brokers.process.guard",
                [*leader, str(files.home), str(files.pause_over), repr(deadline)],
                environment={"LANG": "C.UTF-8"},
                output=writing,
                errors=2,
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        guard = processes.identify(pid)
        if guard is None:
            os.close(reading)
            raise _no_guard()
        self._guards[guard] = ExitWatch(guard, ended=lambda _: self._forget(guard))
        try:
            async with asyncio.timeout(_GUARD_SECONDS):
                answer = await _read(reading)
            if answer != READY:
                raise _no_guard()
        except TimeoutError:
            processes.kill(guard)
            raise _no_guard() from None
        except BaseException:
            processes.kill(guard)  # one that nobody knows of would end a later pause
            raise
        finally:
            os.close(reading)
        return guard

    def _forget(self, guard: ProcessId) -> None:
        self._guards.pop(guard, None)

    async def _at_deadline(self, pause: Pause) -> None:
        await asyncio.sleep(max(pause.deadline - time.monotonic(), 0.0))
        async with self._pausing:
            if self._service.record.pause == pause:
                await self._end(pause, broken=True)

    async def _end(self, pause: Pause, *, broken: bool = False) -> Pause:
        """Let the service go on; the pause with its outcome, which is on record then."""
        service = self._service
        # The guard goes first: after that nobody but us ends the pause, and what is found frozen was never let go.
        processes.kill(pause.guard)
        await processes.gone(pause.guard, deadline_seconds=_GUARD_SECONDS)
        run = service.run
        held = (
            not broken
            and pause.acknowledged
            and not _is_over(pause)
            and not service.files.pause_over.exists()
            and run is not None
            and run.run == pause.run
            and processes.is_stopped(run.process)
        )
        service.processes().signal(processes.CONTINUE)
        ended = msgspec.structs.replace(pause, held=held)
        service.keep(pause=ended)
        if self._timer is not None and self._timer is not asyncio.current_task():
            self._timer.cancel()
        return ended

    # --- hooks

    async def hook(self, request: ExecHook) -> Held:
        """Call a hook. Raises as :meth:`ServiceHooks.call`, and ``service_not_running`` for a quiesce."""
        check_hook(request.hook, phase=request.phase)
        async with self._hooking:
            if request.phase == "quiesce":
                return await self._quiesce(request)
            return await self._thaw(request)

    async def _quiesce(self, request: ExecHook) -> Held:
        _check_deadline(request.deadline_seconds)
        service = self._service
        known = service.record.quiesce
        if known is not None and known.id == request.id and known.acknowledged:
            return Held(held=True)
        run = self._running()
        quiesce = Quiesce(
            id=request.id,
            operation=request.operation,
            run=run.run,
            boot=processes.boot_id(),
            deadline=time.monotonic() + request.deadline_seconds,
        )
        # On record, and with its end assured, before the service hears of it: we may be gone the moment after.
        service.keep(quiesce=quiesce)
        self._thaw_by_deadline(quiesce)
        await self._hooks.call(request.hook, phase="quiesce", body={"deadline_seconds": request.deadline_seconds})
        if service.run is not run:
            raise temporary_error("service_restarted", "the service ended while it quiesced")
        service.keep(quiesce=msgspec.structs.replace(quiesce, acknowledged=True))
        return Held(held=True)

    async def _thaw(self, request: ExecHook) -> Held:
        service = self._service
        known = service.record.quiesce
        run = service.run
        if known is not None and known.held is not None and known.operation == request.operation:
            return Held(held=known.held, message=known.broken)
        cause = ""
        if known is None or known.held is not None or known.operation != request.operation:
            cause = "no quiesce is on record"
        elif not known.acknowledged:
            cause = "the quiesce was not acknowledged"
        elif run is None or run.run != known.run or known.boot != processes.boot_id():
            cause = "the process was restarted since it quiesced"
        elif time.monotonic() > known.deadline:
            cause = "the deadline of the quiesce passed"
        if run is not None:
            await self._hooks.call(request.hook, phase="thaw", body={})
            if service.run is not run:
                cause = cause or "the process ended while it thawed"
        if known is not None and known.held is None:
            self._thawed(known, broken=cause)
        return Held(held=not cause, message=cause)

    def _thawed(self, quiesce: Quiesce, *, broken: str) -> None:
        self._service.keep(quiesce=msgspec.structs.replace(quiesce, held=not broken, broken=broken))
        if self._thawing is not None and self._thawing is not asyncio.current_task():
            self._thawing.cancel()

    def _thaw_by_deadline(self, quiesce: Quiesce) -> None:
        """Let the service go on at the deadline by its own hook, whoever asked for the quiesce and is gone since."""
        if self._thawing is not None:
            self._thawing.cancel()
        self._thawing = asyncio.create_task(self._thaw_at_deadline(quiesce.id))

    async def _thaw_at_deadline(self, id: str) -> None:
        service = self._service
        while (known := service.record.quiesce) is not None and known.id == id and known.held is None:
            left = known.deadline - time.monotonic() if known.boot == processes.boot_id() else 0.0
            if left > 0:
                await asyncio.sleep(left)
                continue
            async with self._hooking:
                if service.record.quiesce == known and await self._thaw_overdue(known):
                    return
            await asyncio.sleep(_THAW_AGAIN_SECONDS)

    async def _thaw_overdue(self, quiesce: Quiesce) -> bool:
        """Whether nothing is held by ``quiesce`` any more."""
        service, run = self._service, self._service.run
        hook = service.record.spec.hooks.thaw
        if run is not None and run.run == quiesce.run and hook is not None:
            try:
                await self._hooks.call(hook, phase="thaw", body={})
            except CalqueError as error:
                logger.warning("%s can't be thawed at its deadline: %s", service.files.service, error)
                return False
            logger.warning("%s was thawed at the deadline of its quiesce", service.files.service)
        self._thawed(quiesce, broken="the deadline of the quiesce passed")
        return True

    def _running(self) -> ServiceRun:
        run = self._service.run
        if run is None:
            name = self._service.files.service
            raise temporary_error("service_not_running", f"{name} does not run now", field=name)
        return run


async def _read(descriptor: int) -> bytes:
    """What comes out of a pipe first; nothing when its other end is closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, len(READY))


def _no_guard() -> CalqueError:
    return temporary_error("no_guard", "the guard that ends the pause could not be started")


def _is_over(pause: Pause) -> bool:
    return pause.boot != processes.boot_id() or time.monotonic() > pause.deadline


def _told(pause: Pause) -> Held:
    return Held(held=bool(pause.held), message="" if pause.held else "the service went on before it was resumed")


def _check_deadline(seconds: float) -> None:
    if not 0 < seconds <= 3600:
        raise CalqueError(invalid("deadline_seconds", f"{seconds:g} is not between 0 and 3600"))
