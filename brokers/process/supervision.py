"""Keeping one service as its record says it should be: started, probed, started again, stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from brokers.process import ports, processes, restarts
from brokers.process.artifacts import ArtifactStore
from brokers.process.calls import ServiceCalls
from brokers.process.environment import command_of, environment_of
from brokers.process.layout import ServiceFiles
from brokers.process.logfiles import LogFollower, last_lines
from brokers.process.processes import ServiceProcesses
from brokers.process.records import Record, save_record
from brokers.process.run import ServiceRun, recorded_run, start_run
from brokers.process.vault import Vault
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.masking import Mask
from schemas.brokers import ServiceStatus
from schemas.problems import CalqueError
from schemas.values import HealthCheck, ServiceState

logger = logging.getLogger(__name__)

SHOWN_LINES = 15
_STARTING_INTERVAL_SECONDS = 0.1
_WORKER_PROOF_SECONDS = 1.0  # a worker without a port is well when it has run for so long
_FAILURES_TO_UNHEALTHY = 2  # one late answer is no illness
_LOG_INTERVAL_SECONDS = 0.2
_REAP_SECONDS = 5.0
_TOLD_LINES = 2000  # per interval; a service that writes faster is not followed line by line

Tell = Callable[[str, str, str], None]


class Surroundings(NamedTuple):
    """What the services of one broker share. ``tell`` gets instance, service and line of each line of output."""

    vault: Vault
    artifacts: ArtifactStore
    calls: ServiceCalls
    tell: Tell


class Supervision:
    """One service. ``record`` is what is remembered; everything else is found again after a restart."""

    def __init__(self, files: ServiceFiles, record: Record, surroundings: Surroundings) -> None:
        self.files = files
        self.record = record
        self.run: ServiceRun | None = None
        self.healthy = False
        self.message = ""
        self._shared = surroundings
        self.mask = Mask(surroundings.vault.open(record.secrets).values())
        self._exit_code: int | None = None
        self._started = 0.0
        self._crashes = 0
        self._stopping = False
        self._changed = asyncio.Event()
        self._restarting: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        files.make()
        self._follower = LogFollower(files.log)
        self._following = asyncio.create_task(self._follow_for_ever(), name=f"follow {files.service}")

    # --- what is remembered

    def keep(self, **changes: Any) -> None:
        """Change the record, durably."""
        self.record = msgspec.structs.replace(self.record, **changes)
        save_record(self.files.record, self.record)

    def replace(self, record: Record) -> None:
        """Take another content; the service must be stopped."""
        save_record(self.files.record, record)
        self.record = record
        self._crashes = 0
        self.mask = Mask(self._shared.vault.open(record.secrets).values())

    # --- running

    def processes(self) -> ServiceProcesses:
        """All processes of the service, also those that outlived its main process."""
        return self.run.processes() if self.run else ServiceProcesses(leader=None, home=str(self.files.home))

    def environment(self) -> dict[str, str]:
        """All that a process of the service finds in its environment."""
        record = self.record
        return environment_of(
            self.files,
            spec=record.spec,
            plain=record.environment,
            secrets=self._shared.vault.open(record.secrets),
            port=record.port,
        )

    def start(self) -> None:
        """Start it now. Raises ``port_taken`` and ``cannot_start``."""
        record = self.record
        if record.port is not None and not ports.is_free(record.port):
            raise permanent_error(
                "port_taken",
                f"port {record.port} is taken by another process",
                field=record.service,
                remedy="stop that process, or deploy again for another port",
            )
        environment = self.environment()
        self.files.make()
        try:
            run = start_run(self.files, command=command_of(record.spec), environment=environment, ended=self._on_exit)
        except OSError as error:
            raise permanent_error(
                "cannot_start", f"no process could be made: {error.strerror}", field=record.service
            ) from None
        self._begin(run, started=time.monotonic())

    async def restore(self) -> None:
        """After a start of the broker: find the process again, or bring about what should be."""
        found = await recorded_run(self.files)
        wanted = self.record.desired == "running"
        if wanted and found is not None and processes.is_alive(found.process):
            with suppress(ProcessLookupError):
                self._begin(
                    ServiceRun(self.files, run=found.run, process=found.process, ended=self._on_exit), started=0.0
                )
                return
        if found is not None and processes.is_alive(found.process):
            await ServiceProcesses(leader=found.process, home=str(self.files.home)).end(
                grace_seconds=self.record.spec.stop_grace_seconds
            )
        await self.processes().end(grace_seconds=0.0)
        if not wanted:
            self.files.run.unlink(missing_ok=True)
        elif found is not None:  # it ended while nobody watched
            self._after_exit(None)
        else:
            self._restart_after(0.0)

    async def stop(self, *, grace_seconds: float | None = None) -> None:
        """Stop all of it. What should be is not changed. Raises the temporary ``not_stopped``."""
        grace = self.record.spec.stop_grace_seconds if grace_seconds is None else grace_seconds
        self._stopping = True
        try:
            await _cancel(self._restarting)
            await _cancel(self._probing)
            self._restarting = None
            self.healthy = False
            ended = await self.processes().end(grace_seconds=grace)
            while ended and self.run is not None:
                self._changed.clear()
                async with asyncio.timeout(_REAP_SECONDS):
                    await self._changed.wait()
        finally:
            self._stopping = False
        if not ended:
            raise temporary_error("not_stopped", f"{self.files.service} has processes that can't be killed now")
        self.files.run.unlink(missing_ok=True)

    async def close(self) -> None:
        """Let go of it: no more watching, probing, following. The process is not touched."""
        for task in (self._restarting, self._probing, self._following):
            await _cancel(task)
        self._tell_new_lines()
        if self.run:
            self.run.leave()

    # --- health

    async def wait_until_healthy(self) -> None:
        """Raises ``service_exited`` or, after the start period, ``unhealthy``, both with the last lines of the log."""
        period = (self.record.spec.health or HealthCheck()).start_period_seconds
        deadline = time.monotonic() + period
        while not self.healthy:
            name = self.files.service
            if self.run is None and self._restarting is None:
                raise self._failed("service_exited", f"{name} {restarts.ending(self._exit_code)} before it was healthy")
            left = deadline - time.monotonic()
            if left <= 0:
                cause = self.message or "it gave no sign"
                raise self._failed("unhealthy", f"{name} was not healthy within {period:g} s: {cause}")
            self._changed.clear()
            # not wait_for: before Python 3.12 it loses a cancellation that comes together with the event
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def status(self) -> ServiceStatus:
        """What is to be said of it."""
        record = self.record
        state, message = self._state()
        pause = record.pause
        return ServiceStatus(
            instance=record.instance,
            service=record.service,
            state=state,
            healthy=self.healthy,
            paused=pause is not None and pause.held is None and self.run is not None and self.run.run == pause.run,
            url=self.url(),
            host=ports.HOST if record.port else None,
            port=record.port,
            pid=self.run.process.pid if self.run else None,
            restarts=record.restarts,
            message=self.mask(message),
            labels=record.labels,
        )

    def url(self) -> str | None:
        """Where it answers."""
        return f"http://{ports.HOST}:{self.record.port}" if self.record.port else None

    def log_lines(self, count: int) -> list[str]:
        """The last lines of its output, without secrets. Blocks briefly."""
        return [self.mask(line) for line in last_lines(self.files.log, count)]

    # --- inside

    def _state(self) -> tuple[ServiceState, str]:
        record = self.record
        if self._stopping or record.desired == "removed":
            return "stopping", self.message
        if self.run is not None:
            loops = self._crashes > 1 and time.monotonic() - self._started < restarts.STABLE_SECONDS
            note = f"it ended {self._crashes} times in a row and was started again" if loops else ""
            return ("running" if record.deployed else "deploying"), "; ".join(filter(None, (self.message, note)))
        if record.failure:
            return "failed", record.failure
        if record.desired == "stopped":
            return "stopped", ""
        if record.desired == "replacing":
            return "deploying", self.message or "the deployment was interrupted"
        return ("failed" if self._crashes else "deploying"), self.message

    def _begin(self, run: ServiceRun, *, started: float) -> None:
        self.run = run
        self.healthy = False
        self.message = ""
        self._started = started
        self._exit_code = None
        self._restarting = None
        self._probing = asyncio.create_task(self._probe_for_ever(run), name=f"probe {self.files.service}")
        self._changed.set()

    def _on_exit(self, exit_code: int | None) -> None:
        self.run = None
        self.healthy = False
        self._exit_code = exit_code
        if self._probing:
            self._probing.cancel()
        logger.info("%s of %s %s", self.record.service, self.record.instance, restarts.ending(exit_code))
        if not self._stopping:
            self.message = restarts.ending(exit_code)
            if self.record.deployed:
                self._after_exit(exit_code)
            else:  # the deployment that waits for it says what becomes of it
                self.files.run.unlink(missing_ok=True)
        self._changed.set()

    def _after_exit(self, exit_code: int | None) -> None:
        ran = time.monotonic() - self._started if self._started else 0.0
        restart = restarts.after_exit(
            self.record.spec.restart, exit_code=exit_code, ran_seconds=ran, crashes=self._crashes
        )
        how = restarts.ending(exit_code)
        if restart is None:
            self.keep(desired="stopped", failure="" if exit_code == 0 else how)
            self.files.run.unlink(missing_ok=True)
            return
        self._crashes = restart.crashes
        try:
            self.keep(restarts=self.record.restarts + 1)
        except OSError as error:  # a full disk is no reason not to start it again
            logger.error("the record of %s could not be kept: %s", self.files.service, error)
        self.files.run.unlink(missing_ok=True)
        delay = restart.delay_seconds
        times = f"{restart.crashes} times in a row" if restart.crashes > 1 else "once"
        self.message = f"{how}, {times}; it is started again after {delay:g} s"
        self._restart_after(delay)

    def _restart_after(self, delay_seconds: float) -> None:
        self._restarting = asyncio.create_task(self._restart(delay_seconds), name=f"restart {self.files.service}")

    async def _restart(self, delay_seconds: float) -> None:
        delay = delay_seconds
        while True:
            await asyncio.sleep(delay)
            await self.processes().end(grace_seconds=0.0)
            try:
                self.start()
            except CalqueError as error:
                delay = min(max(delay, 1.0) * 2, restarts.LONGEST_DELAY_SECONDS)
                self._crashes += 1
                self.message = f"{error}; tried again after {delay:g} s"
            else:
                return

    async def _probe_for_ever(self, run: ServiceRun) -> None:
        check = self.record.spec.health or HealthCheck()
        failures = 0
        while True:
            pause = self.record.pause
            if pause is None or pause.held is not None:
                trouble = await self._probe()
                failures = failures + 1 if trouble else 0
                if self.run is not run:
                    return
                if trouble is None or not self.healthy or failures >= _FAILURES_TO_UNHEALTHY:
                    self.healthy = trouble is None
                    self.message = trouble or ""
                    self._changed.set()
            await asyncio.sleep(check.interval_seconds if self.healthy else _STARTING_INTERVAL_SECONDS)

    async def _probe(self) -> str | None:
        record = self.record
        if record.port is not None:
            return await self._shared.calls.probe(record.spec.health, port=record.port)
        return None if time.monotonic() - self._started >= _WORKER_PROOF_SECONDS else "it was started just now"

    async def _follow_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOG_INTERVAL_SECONDS)
            try:
                if self._follower.has_more():
                    self._tell_new_lines()
            except OSError as error:
                logger.warning("the log of %s can't be read: %s", self.files.service, error)

    def _tell_new_lines(self) -> None:
        lines = self._follower.new_lines()
        for line in lines[:_TOLD_LINES]:
            self._shared.tell(self.record.instance, self.record.service, self.mask(line))
        if len(lines) > _TOLD_LINES:
            left = f"({len(lines) - _TOLD_LINES} more lines are in the log)"
            self._shared.tell(self.record.instance, self.record.service, left)

    def _failed(self, code: str, message: str) -> CalqueError:
        lines = self.log_lines(SHOWN_LINES)
        tail = "; last lines of its log:\n" + "\n".join(lines) if lines else "; its log is empty"
        return permanent_error(
            code, self.mask(message) + tail, field=self.files.service, remedy="see the log of the service"
        )


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is None or task is asyncio.current_task():
        return
    task.cancel()
    await asyncio.wait({task})
