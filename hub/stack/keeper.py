"""One part kept running: start, ready check, restart with backoff, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hub.stack import leftovers
from hub.stack.errors import NotReady, PartFailed, StackError
from hub.stack.files import PRIVATE_FILE
from hub.stack.parts import Part
from hub.stack.processes import ProcessIdentity, identify, kill_all, send, session_members

LOG_LIMIT_BYTES = 8 << 20
TAIL_BYTES = 2_000
Phase = Literal["waiting", "starting", "ready", "backoff", "stopping", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Seconds to wait before a restart: doubled each time, from the first again after stable running.

    A part that never became ready is given up after `attempts` starts.
    """

    first: float = 0.2
    longest: float = 15.0
    stable_after: float = 20.0
    attempts: int = 3

    def delay(self, failures: int) -> float:
        """The wait after this many failures in a row (1 and up)."""
        return float(min(self.first * 2 ** min(failures - 1, 32), self.longest))


@dataclass(frozen=True, kw_only=True)
class PartState:
    """What a part is doing. `restarts` counts all starts but the first; `cause` is that of the last failure."""

    phase: Phase = "waiting"
    pid: int | None = None
    restarts: int = 0
    cause: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As it stands in `status.json`."""
        return asdict(self)


class Keeper:
    """Runs one part. `start` returns when it is ready for the first time; from then on it is restarted."""

    def __init__(
        self,
        part: Part,
        *,
        log_file: Path,
        record_file: Path,
        extra_env: Mapping[str, str],
        backoff: Backoff,
        on_change: Callable[[], None],
    ) -> None:
        self.part = part
        self.state = PartState()
        self._log_file = log_file
        self._record_file = record_file
        self._extra_env = extra_env
        self._backoff = backoff
        self._on_change = on_change
        self._ready_once: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._identity: ProcessIdentity | None = None

    async def first_ready(self) -> None:
        """Wait until the part was ready once. Raises `PartFailed` when it was given up."""
        await asyncio.shield(self._first())

    async def start(self) -> None:
        """Start the part and keep it; returns when it is ready. Raises `PartFailed`."""
        if self._ready_once is not None and self._ready_once.done():
            self._ready_once = None
        first = self._first()
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.part.name}")
        await asyncio.shield(first)

    def give_up_waiting(self) -> None:
        """The stack is being stopped: nobody is to wait for this part any more."""
        first = self._first()
        if not first.done():
            self._fail(first, "was not started: the stack is being stopped")

    async def stop(self, *, deadline: float) -> None:
        """Stop the part: its signal, its grace, then SIGKILL of all that is left of its session.

        `deadline` is a moment of the loop's clock at which grace ends in any case.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._process is not None:
            self._set(phase="stopping")
            await self._end(deadline=deadline)
        if self.part.after_stop is not None:
            await asyncio.to_thread(self.part.after_stop)
        self._set(phase="stopped", pid=None)

    def _fail(self, first: asyncio.Future[None], why: str) -> None:
        first.set_exception(PartFailed(f"{self.part.name} {why}"))
        first.exception()  # marks it as seen: there may be nobody who waits

    def _first(self) -> asyncio.Future[None]:
        if self._ready_once is None:
            self._ready_once = asyncio.get_running_loop().create_future()
        return self._ready_once

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            cause = await self._run_once()
            failures = 1 if loop.time() - began >= self._backoff.stable_after else failures + 1
            first = self._first()
            if not first.done() and failures >= self._backoff.attempts:
                self._set(phase="failed", pid=None, cause=cause)
                self._fail(first, f"{cause}{self._tail()}")
                return
            self._set(phase="backoff", pid=None, cause=cause)
            await asyncio.sleep(self._backoff.delay(failures))
            self._set(restarts=self.state.restarts + 1)

    async def _run_once(self) -> str:
        """Run the part until it ends; the cause of its end."""
        part = self.part
        loop = asyncio.get_running_loop()
        self._set(phase="starting")
        try:
            if part.prepare is not None:
                await part.prepare()
            process = await self._spawn()
        except (OSError, StackError) as cause:
            return f"can't be started: {cause}"
        exited = asyncio.create_task(process.wait())
        try:
            if part.ready is not None:
                ready = asyncio.ensure_future(part.ready(loop.time() + part.ready_timeout))
                try:
                    await asyncio.wait({ready, exited}, return_when=asyncio.FIRST_COMPLETED)
                    if not exited.done():
                        ready.result()
                except NotReady as cause:
                    await self._end(deadline=loop.time() + part.stop_grace)
                    return f"was not ready within {part.ready_timeout:g} s: {cause}"
                finally:
                    ready.cancel()
                    await asyncio.gather(ready, return_exceptions=True)
            if not exited.done():
                self._set(phase="ready")
                first = self._first()
                if not first.done():
                    first.set_result(None)
            code = await asyncio.shield(exited)
        finally:
            exited.cancel()
        await self._end(deadline=loop.time())
        return f"ended by signal {-code}" if code < 0 else f"exited with status {code}"

    async def _spawn(self) -> Process:
        part = self.part
        environment = {**os.environ, **part.env, **self._extra_env}
        with self._open_log() as log:
            process = await asyncio.create_subprocess_exec(
                *part.argv,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=part.cwd,
                start_new_session=True,
                user=part.user,
                group=part.group,
                extra_groups=None if part.user is None else [],
            )
        self._process = process
        self._identity = identify(process.pid)
        if self._identity is not None:
            leftovers.record(self._record_file, self._identity, number=part.stop_signal, grace=part.stop_grace)
        self._set(pid=process.pid)
        return process

    def _open_log(self) -> Any:
        if self._log_file.exists() and self._log_file.stat().st_size > LOG_LIMIT_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        descriptor = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        return os.fdopen(descriptor, "ab", buffering=0)

    async def _end(self, *, deadline: float) -> None:
        """End the process if it runs, and whatever is left of its session."""
        process = self._process
        if process is None:
            return
        loop = asyncio.get_running_loop()
        if process.returncode is None:
            if self._identity is not None:
                send(self._identity, self.part.stop_signal)
            patience = min(self.part.stop_grace, max(deadline - loop.time(), 0.0))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience)
        if identify(process.pid) in (self._identity, None):
            kill_all(session_members(process.pid))
        await process.wait()
        self._process = self._identity = None
        self._record_file.unlink(missing_ok=True)

    def _tail(self) -> str:
        try:
            with self._log_file.open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(stream.tell() - TAIL_BYTES, 0))
                text = stream.read().decode(errors="replace").strip()
        except OSError:
            return ""
        return f"; {self._log_file} ends with:\n{text}" if text else f"; {self._log_file} is empty"

    def _set(self, **changes: Any) -> None:
        changed = replace(self.state, **changes)
        if changed != self.state:
            self.state = changed
            self._on_change()
