"""All services of one state directory: the process platform, without the bus."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from brokers.process import ports
from brokers.process.artifacts import ArtifactStore, remove_tree
from brokers.process.calls import ServiceCalls
from brokers.process.holds import Holds
from brokers.process.hooks import Body, ServiceHooks, check_hook
from brokers.process.layout import ServiceFiles, StateLayout
from brokers.process.processes import ServiceProcesses
from brokers.process.records import Record, load_record
from brokers.process.requests import SPACE as SPACE
from brokers.process.requests import check_deployment, run_task
from brokers.process.supervision import Supervision, Surroundings, Tell
from brokers.process.vault import Vault
from brokers.sdk.errors import temporary_error
from schemas.brokers import (
    Deployed,
    DeployService,
    ExecHook,
    Held,
    HookRan,
    PauseService,
    RemoveService,
    ResumeService,
    RunHook,
    ScaleService,
    ServiceStatus,
)
from schemas.problems import CalqueError, conflict, invalid, not_found

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.05


class _Service(NamedTuple):
    supervision: Supervision
    holds: Holds
    hooks: ServiceHooks


def _silent(_instance: str, _service: str, _line: str) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


class ProcessPlatform:
    """Runs app services as local processes. ``open`` first, ``close`` last; ``close`` stops the services, and the
    next ``open`` of the same state directory starts them again, at the same ports."""

    def __init__(self, layout: StateLayout, *, tell: Tell = _silent) -> None:
        self._layout = layout
        self._tell = tell
        self._services: dict[ServiceFiles, _Service] = {}
        self._locks: dict[ServiceFiles, asyncio.Lock] = {}
        self._lock = -1

    # --- life

    async def open(self) -> None:
        """Take the state directory and bring about what it says. Raises the temporary ``in_use``."""
        self._layout.services.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._take_lock()
        self._vault = Vault(self._layout.key)
        self._calls = ServiceCalls()
        self._surroundings = Surroundings(
            vault=self._vault,
            artifacts=ArtifactStore(self._layout.artifacts),
            calls=self._calls,
            tell=self._tell,
        )
        for leftover in self._layout.artifacts.glob(".new-*"):
            remove_tree(leftover)
        await asyncio.gather(*(self._restore(files) for files in self._layout.all_services()))

    async def close(self, *, grace_seconds: float) -> None:
        """Stop all services, each within its own grace and all within ``grace_seconds``."""
        results = await asyncio.gather(
            *(self._put_to_rest(service, grace_seconds) for service in self._services.values()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                logger.error("a service could not be stopped", exc_info=result)
        self._services.clear()
        await self._calls.close()
        self.let_go()

    def let_go(self) -> None:
        """Give up the state directory, if ``close`` did not come so far."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _put_to_rest(self, service: _Service, grace_seconds: float) -> None:
        supervision = service.supervision
        await service.holds.release()
        await service.holds.close()
        await supervision.stop(grace_seconds=min(grace_seconds, supervision.record.spec.stop_grace_seconds))
        await supervision.close()

    async def _take_lock(self) -> None:
        self._lock = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self.let_go()
                    raise temporary_error(
                        "in_use", f"{self._layout.state_dir} is used by another broker", retry_after_seconds=5.0
                    ) from None
            await asyncio.sleep(_POLL_SECONDS)

    async def _restore(self, files: ServiceFiles) -> None:
        try:
            record = load_record(files.record)
        except (msgspec.DecodeError, OSError) as error:
            logger.error("the record %s can't be read, the service is left alone: %s", files.record, error)
            return
        if record is None or record.desired == "removed":
            await self._erase(files)
            return
        remove_tree(files.staged)
        try:
            service = self._add(files, record)
            await service.supervision.restore()
            await service.holds.restore()
        except (CalqueError, OSError) as error:
            logger.error("%s of %s could not be restored: %s", record.service, record.instance, error)

    def _add(self, files: ServiceFiles, record: Record) -> _Service:
        supervision = Supervision(files, record, self._surroundings)
        hooks = ServiceHooks(supervision, self._calls)
        service = _Service(supervision, Holds(supervision, hooks), hooks)
        self._services[files] = service
        return service

    # --- operations

    async def deploy(self, request: DeployService, *, cancelling: Callable[[], bool] = _never) -> Deployed:
        """Run the service and wait until it is healthy; see ``DeployService``. When the task is cancelled and
        ``cancelling`` says yes, what was made is removed; else the next start goes on with it."""
        check_deployment(request)
        files = self._files(request.instance, request.service)
        async with self._alone(files):
            before = self._services.get(files)
            try:
                service = await self._ensure(files, request)
                await service.supervision.wait_until_healthy()
            except CalqueError as error:
                await self._give_up(files, error.problem.message)
                raise
            except asyncio.CancelledError:
                if cancelling():
                    await self._give_up(files, "the deployment was cancelled")
                    if before is None:
                        await self._remove(files)
                raise
            supervision = service.supervision
            if not supervision.record.deployed:
                supervision.keep(deployed=True)
            port = supervision.record.port
            return Deployed(
                host=ports.HOST if port else None,
                port=port,
                url=supervision.url(),
                artifact_digest=supervision.record.artifact_digest,
            )

    async def scale(self, request: ScaleService) -> None:
        """Stop it, or start it again as it was deployed. Raises ``not_found`` and as :meth:`deploy`."""
        if request.replicas not in (0, 1):
            raise CalqueError(invalid("replicas", f"{request.replicas} processes can't share a port", "use 0 or 1"))
        files = self._files(request.instance, request.service)
        async with self._alone(files):
            service = self._services.get(files)
            if service is None and request.replicas == 0:
                return
            service = self._known(files)
            supervision = service.supervision
            if request.replicas == 0:
                supervision.keep(desired="stopped", failure="")
                await service.holds.release()
                await supervision.stop()
                return
            if supervision.record.desired == "replacing":
                raise CalqueError(conflict("service", "its deployment was not finished", "deploy it again"))
            if supervision.record.desired != "running":
                supervision.keep(desired="running", failure="", deployed=False)
                await supervision.stop(grace_seconds=0.0)
                supervision.start()
            try:
                await supervision.wait_until_healthy()
            except CalqueError as error:
                await self._give_up(files, error.problem.message)
                raise
            supervision.keep(deployed=True)

    async def remove(self, request: RemoveService) -> None:
        """Stop it and remove all that belongs to it."""
        files = self._files(request.instance, request.service)
        async with self._alone(files):
            await self._remove(files)

    async def pause(self, request: PauseService) -> Held:
        """See :meth:`Holds.pause`. Raises ``not_found``."""
        return await self._known(self._files(request.instance, request.service)).holds.pause(request)

    async def resume(self, request: ResumeService) -> Held:
        """See :meth:`Holds.resume`; an unknown service is not paused."""
        service = self._services.get(self._files(request.instance, request.service))
        if service is None:
            return Held(held=False, message="there is no such service")
        return await service.holds.resume(request)

    async def hook(self, request: ExecHook) -> Held:
        """See :meth:`Holds.hook`. Raises ``not_found``."""
        return await self._known(self._files(request.instance, request.service)).holds.hook(request)

    async def run_hook(self, request: RunHook) -> HookRan:
        """See ``RunHook``. Raises ``not_found``, and as :meth:`ServiceHooks.call`."""
        check_hook(request.hook, phase=request.phase)
        files = self._files(request.instance, request.service)
        async with self._alone(files):
            if request.task is not None:
                return HookRan(output=await self._task(files, request, request.task))
            service = self._known(files)
            if not request.hook.exec and service.supervision.run is None:
                name = request.service
                raise temporary_error("service_not_running", f"{name} does not run now", field=name)
            body: Body = {} if request.hook.exec else {"phase": request.phase}
            return HookRan(output=await service.hooks.call(request.hook, phase=request.phase, body=body))

    async def _task(self, files: ServiceFiles, request: RunHook, deployment: DeployService) -> str:
        """Run a hook where the service will be, before it is there."""
        check_deployment(deployment)
        files.make()
        remove_tree(files.staged)
        try:
            await self._stage(files, deployment)
            return await run_task(files, request, deployment)
        finally:
            await asyncio.to_thread(remove_tree, files.staged)
            if files not in self._services:
                await self._erase(files)

    def describe(self, instance: str | None = None) -> tuple[ServiceStatus, ...]:
        """All services, or those of one instance."""
        found = (service.supervision.status() for service in self._services.values())
        return tuple(status for status in found if instance is None or status.instance == instance)

    def logs(self, *, instance: str, service: str, lines: int) -> tuple[str, ...]:
        """The last lines of a service's output, without secrets. Raises ``not_found``. Blocks briefly."""
        return tuple(self._known(self._files(instance, service)).supervision.log_lines(lines))

    # --- inside

    def _files(self, instance: str, service: str) -> ServiceFiles:
        return self._layout.service(instance=instance, service=service)

    def _known(self, files: ServiceFiles) -> _Service:
        if service := self._services.get(files):
            return service
        raise CalqueError(not_found("service", f"there is no service {files.service} here", "deploy it first"))

    @asynccontextmanager
    async def _alone(self, files: ServiceFiles) -> AsyncIterator[None]:
        async with self._locks.setdefault(files, asyncio.Lock()):
            yield

    async def _ensure(self, files: ServiceFiles, request: DeployService) -> _Service:
        """The service with the request's content, started."""
        content = self._content(request)
        service = self._services.get(files)
        if service is None or service.supervision.record.content != content:
            return await self._replace(files, request, content)
        supervision = service.supervision
        if supervision.record.desired == "replacing" or not files.artifact.is_dir():
            return await self._replace(files, request, content)
        if dict(request.labels) != supervision.record.labels:
            supervision.keep(labels=dict(request.labels))
        waits = supervision.run is None and supervision.record.deployed and _port_is_free(supervision.record)
        if supervision.record.desired != "running" or (supervision.run is None and not waits):
            await service.holds.release()
            await supervision.stop(grace_seconds=0.0)
            port = self._port(request, supervision.record)
            supervision.keep(desired="running", failure="", deployed=False, port=port)
            supervision.start()
        return service

    async def _replace(self, files: ServiceFiles, request: DeployService, content: str) -> _Service:
        service = self._services.get(files)
        files.make()
        remove_tree(files.staged)
        digest = await self._stage(files, request)
        old: Record | None = None
        if service is not None:
            # From here until the new content is on record, a restart of the broker starts nothing.
            service.supervision.keep(desired="replacing")
            await service.holds.release()
            await service.supervision.stop()
            old = service.supervision.record
        else:  # what a service whose record was lost left running
            await ServiceProcesses(leader=None, home=str(files.home)).end(grace_seconds=0.0)
        remove_tree(files.artifact)
        files.staged.rename(files.artifact)
        record = Record(
            instance=request.instance,
            service=request.service,
            spec=request.spec,
            environment=dict(request.environment),
            secrets=self._vault.close(request.secret_environment),
            labels=dict(request.labels),
            content=content,
            artifact_digest=digest,
            port=self._port(request, old),
            desired="running",
        )
        if service is None:
            service = self._add(files, record)
        service.supervision.replace(record)
        service.supervision.start()
        return service

    async def _stage(self, files: ServiceFiles, request: DeployService) -> str:
        staging = asyncio.ensure_future(
            asyncio.to_thread(self._surroundings.artifacts.stage, request.spec.artifact, files.staged)
        )
        try:
            return await asyncio.shield(staging)
        except asyncio.CancelledError:
            await asyncio.wait({staging})  # the thread can't be stopped, and must not write where we clean up
            raise

    async def _give_up(self, files: ServiceFiles, cause: str) -> None:
        """After a failed deployment: nothing of it runs; a service that ran well before is left as it is."""
        service = self._services.get(files)
        if service is None:
            if not files.record.exists():
                await self._erase(files)
            return
        record = service.supervision.record
        if record.desired == "running" and not record.deployed:
            service.supervision.keep(desired="stopped", failure=cause.partition("; last lines")[0])
            await service.holds.release()
            await service.supervision.stop()

    async def _remove(self, files: ServiceFiles) -> None:
        if service := self._services.get(files):
            service.supervision.keep(desired="removed")
            await service.holds.release()
            await service.holds.close()
            await service.supervision.stop()
            await service.supervision.close()
            del self._services[files]
        await self._erase(files)

    async def _erase(self, files: ServiceFiles) -> None:
        await ServiceProcesses(leader=None, home=str(files.home)).end(grace_seconds=0.0)
        await asyncio.to_thread(remove_tree, files.root)
        if files.root.parent.is_dir() and not any(files.root.parent.iterdir()):
            files.root.parent.rmdir()

    def _port(self, request: DeployService, old: Record | None) -> int | None:
        if request.spec.port is None:
            return None
        if old is not None and old.port is not None and ports.is_free(old.port):
            return old.port
        return ports.pick({port for service in self._services.values() if (port := service.supervision.record.port)})

    def _content(self, request: DeployService) -> str:
        """The keyed digest of what the process depends on."""
        secrets = {name: secret.value for name, secret in request.secret_environment.items()}
        parts = (request.spec, request.environment, secrets, request.space)
        return self._vault.digest(msgspec.json.encode(parts, order="deterministic"))


def _port_is_free(record: Record) -> bool:
    return record.port is None or ports.is_free(record.port)
