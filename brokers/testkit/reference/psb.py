"""The reference platform broker: app services that live in its own process."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from brokers.testkit.reference.engine import EngineBroker
from brokers.testkit.reference.fake_app import FakeApp
from brokers.testkit.reference.psb_hooks import ReferenceHook
from schemas.brokers import (
    Change,
    Deployed,
    DeployService,
    DescribeServices,
    Done,
    ExecHook,
    Held,
    HookRan,
    LogLines,
    LogsRequest,
    PauseService,
    PsbInfo,
    RemoveService,
    ResumeService,
    RunHook,
    ScaleService,
    ServicesDescription,
    ServiceStatus,
    Spaces,
    SpacesRequest,
)
from schemas.problems import CalqueError, invalid, not_found, permanent
from schemas.values import ServiceState

POLL_SECONDS = 0.01

Name = tuple[str, str]


class Hold(msgspec.Struct):
    """A pause or a quiesce, and whether it was unbroken when it ended."""

    id: str
    deadline: float
    held: bool | None = None


class Service:
    """An app service: its request, and its run while it has one."""

    def __init__(self, request: DeployService) -> None:
        self.request = request
        self.app: FakeApp | None = None
        self.restarts = 0
        self.stopped = False
        self.pause: Hold | None = None
        self.quiesce: Hold | None = None
        self.watching: asyncio.Task[None] | None = None


class ReferencePsb(EngineBroker):
    """Apps of the kit only. ``disk['deployed']`` has the requests."""

    kind = "psb"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.services: dict[Name, Service] = {}
        self.deployed: dict[Name, DeployService] = self.disk.setdefault("deployed", {})
        self.hooks: dict[str, Held] = {}
        self.timers: set[asyncio.Task[None]] = set()

    def key_of(self, request: Change) -> str:
        return f"{getattr(request, 'instance', '')}/{getattr(request, 'service', '')}"

    async def open(self) -> None:
        await super().open()
        if self.restarted and self.broken("any.restart.effect"):
            self.deployed.clear()
        for name, request in self.deployed.items():
            if self.broken("psb.restart.services"):
                request = msgspec.structs.replace(request, environment={})
            service = self.services[name] = Service(request)
            await self._run_app(service)

    async def close(self) -> None:
        await super().close()
        for service in list(self.services.values()):
            await self._end(service)
        for timer in self.timers:
            timer.cancel()

    async def describe_self(self) -> PsbInfo:
        name = "other" if self.broken("any.info.complete") else self.name
        hooks = ("http", "run", "exec", "task")
        return PsbInfo(name=name, version="1.0.0", artifacts=("process",), hooks=hooks)

    async def spaces(self, _: SpacesRequest) -> Spaces:
        return Spaces(spaces=("default", "other") if self.broken("psb.spaces") else ("default",))

    # --- running

    async def _run_app(self, service: Service) -> None:
        request = service.request
        environment = dict(request.environment)
        if not self.broken("psb.environment.given"):
            environment |= {name: secret.value for name, secret in request.secret_environment.items()}
        if self.broken("psb.environment.isolated"):
            for other in self.services.values():
                environment = {**other.request.environment, **environment}
        service.app = FakeApp(environment)
        await service.app.start()
        service.stopped = False
        service.watching = asyncio.create_task(self._watch(service, service.app))

    async def _watch(self, service: Service, app: FakeApp) -> None:
        await app.ended.wait()
        await asyncio.sleep(POLL_SECONDS)
        await app.stop()
        if self.broken("psb.crash.restarted"):
            return
        service.restarts += 1
        watching = service.watching
        await self._run_app(service)
        del watching

    async def _end(self, service: Service) -> None:
        if service.watching is not None:
            service.watching.cancel()
        if service.app is not None:
            service.app.going.set()
            await service.app.stop()
            service.app = None

    def _service(self, name: Name) -> Service:
        if name not in self.services:
            raise CalqueError(not_found("service", f"there is no service {name[1]} here"))
        return self.services[name]

    async def deploy(self, request: DeployService) -> Deployed:
        if request.space != "default" and not self.broken("psb.deploy.space"):
            told = next((each.value for each in request.secret_environment.values()), "")
            said = f"there is no space {request.space}" + (told if self.broken("psb.secrets.hidden") else "")
            raise CalqueError(invalid("space", said))
        name = (request.instance, request.service)
        service = self.services.get(name)
        if service is not None and service.app is None and self.broken("psb.deploy.after_failure"):
            raise CalqueError(permanent("broken", "it failed before"))
        fresh = service is None or service.app is None
        if service is None:
            service = self.services[name] = Service(request)
        before, changed = service.request, _content(service.request) != _content(request)
        if fresh or (changed and not self.broken("psb.deploy.replaced")) or self.broken("psb.deploy.unchanged"):
            if self.broken("psb.scale.deployed") and service.stopped and not changed:
                return Deployed(host="127.0.0.1", port=1, url="http://127.0.0.1:1")
            await self._end(service)
            service.request = request
            await self._run_app(service)
        try:
            await self._wait_until_healthy(service, request)
        except asyncio.CancelledError:
            await self._end(service)
            if not self.broken("any.cancel.running"):
                self.services.pop(name, None)
            raise
        except CalqueError:
            await self._end(service)
            service.request = before
            raise
        self.deployed[name] = request
        app = service.app
        assert app is not None
        url = "http://127.0.0.1:1" if self.broken("psb.deploy.answers") else app.url
        if self.broken("psb.deploy.concurrent"):
            await self._end(service)
            await self._run_app(service)
            url = service.app.url if service.app else url
        return Deployed(host="127.0.0.1", port=app.port, url=url)

    async def _wait_until_healthy(self, service: Service, request: DeployService) -> None:
        loop = asyncio.get_running_loop()
        health = request.spec.health
        deadline = loop.time() + (health.start_period_seconds if health else 60.0)
        app = service.app
        while app is not None and not app.well:
            if loop.time() > deadline:
                if self.broken("psb.deploy.unhealthy"):
                    return
                raise CalqueError(permanent("unhealthy", "its health check answers 500", field=request.service))
            await asyncio.sleep(POLL_SECONDS)

    async def scale(self, request: ScaleService) -> Done:
        name = (request.instance, request.service)
        if name not in self.services and (request.replicas == 0 or self.broken("psb.scale.unknown")):
            return Done()
        service = self._service(name)
        if request.replicas == 0:
            if not self.broken("psb.scale.zero"):
                await self._end(service)
                service.stopped = True
            return Done()
        if service.app is None:
            if self.broken("psb.scale.one"):
                service.request = msgspec.structs.replace(service.request, environment={})
            await self._run_app(service)
        return Done()

    async def remove(self, request: RemoveService) -> Done:
        name = (request.instance, request.service)
        if name not in self.services:
            if self.broken("psb.remove.unknown"):
                self._service(name)
            return Done()
        if self.broken("psb.remove.all_gone"):
            return Done()
        await self._end(self.services[name])
        self.services.pop(name, None)
        self.deployed.pop(name, None)
        self.made.pop(self.key_of(request), None)
        return Done()

    async def describe(self, request: DescribeServices) -> ServicesDescription:
        found: list[ServiceStatus] = []
        for (instance, name), service in self.services.items():
            if request.instance not in (None, instance) and not self.broken("psb.describe.instance"):
                continue
            status = self._status_of(instance, name, service)
            found += [status] * (2 if f"{instance}/{name}" in self.doubled else 1)
        return ServicesDescription(services=tuple(found))

    def _status_of(self, instance: str, name: str, service: Service) -> ServiceStatus:
        app = service.app
        state: ServiceState = "running" if app is not None else "stopped" if service.stopped else "failed"
        hold = service.pause
        return ServiceStatus(
            instance=instance,
            service=name,
            state="pending" if self.broken("psb.describe.state") else state,
            healthy=app is not None and (app.well or self.broken("psb.health.told")) and not app.ended.is_set(),
            paused=hold is not None and hold.held is None,
            url=app.url if app else None,
            restarts=service.restarts,
            labels={} if self.broken("psb.describe.labels") else dict(service.request.labels),
        )

    async def logs(self, request: LogsRequest) -> LogLines:
        name = (request.instance, request.service)
        if name not in self.services and self.broken("psb.logs.unknown"):
            return LogLines(lines=())
        service = self._service(name)
        lines = list(service.app.log) if service.app else []
        if not self.broken("psb.secrets.logs"):
            for secret in service.request.secret_environment.values():
                lines = [line.replace(secret.value, "***") for line in lines]
        if self.broken("psb.logs.lines"):
            lines.reverse()
        return LogLines(lines=tuple(lines if self.broken("psb.logs.last") else lines[-request.lines :]))

    # --- holds

    async def pause(self, request: PauseService) -> Held:
        name = (request.instance, request.service)
        if name not in self.services and self.broken("psb.pause.unknown"):
            return Held(held=True)
        service = self._service(name)
        if service.pause is not None and service.pause.id == request.id:
            if self.broken("psb.pause.repeated"):
                raise CalqueError(permanent("paused", "it is paused already"))
            return Held(held=service.pause.held is not False)
        hold = Hold(request.id, asyncio.get_running_loop().time() + request.deadline_seconds)
        service.pause = hold
        if service.app is not None and not self.broken("psb.pause.holds"):
            service.app.going.clear()
        if not self.broken("psb.pause.deadline"):
            timer = asyncio.create_task(self._at_deadline(service, hold))
            self.timers.add(timer)
            timer.add_done_callback(self.timers.discard)
        return Held(held=True)

    async def _at_deadline(self, service: Service, hold: Hold) -> None:
        await asyncio.sleep(hold.deadline - asyncio.get_running_loop().time())
        if hold.held is None:
            hold.held = self.broken("psb.pause.broken")
            if service.app is not None:
                service.app.going.set()

    async def resume(self, request: ResumeService) -> Held:
        service = self.services.get((request.instance, request.service))
        hold = service.pause if service else None
        if service is None or hold is None or (request.pause and request.pause != hold.id):
            if self.broken("psb.resume.not_paused"):
                raise CalqueError(not_found("pause", "there is no such pause"))
            return Held(held=False)
        if hold.held is None:
            hold.held = True
            if service.app is not None:
                service.app.going.set()
        return Held(held=hold.held)

    async def exec_hook(self, request: ExecHook) -> Held:
        name = (request.instance, request.service)
        if name not in self.services and self.broken("psb.hook.unknown"):
            return Held(held=False)
        service = self._service(name)
        if request.id in self.hooks and not self.broken("psb.hook.repeated"):
            return self.hooks[request.id]
        quiesce = request.phase == "quiesce"
        status = 200
        if service.app is not None and not self.broken("psb.hook.called"):
            body = {"deadline_seconds": request.deadline_seconds} if quiesce else {}
            status = service.app.call(request.hook.http.partition(" ")[2], body)
        if status != 200 and not self.broken("psb.hook.refused"):
            raise CalqueError(permanent("hook_refused", f"it answered {status}", field=f"hooks.{request.phase}"))
        known = service.quiesce
        held = quiesce or (known is not None and known.id == request.operation) or self.broken("psb.hook.broken")
        if quiesce:
            service.quiesce = Hold(request.operation, 0.0)
        self.hooks[request.id] = Held(held=held)
        return Held(held=held)

    async def run_hook(self, request: RunHook) -> HookRan:
        name = (request.instance, request.service)
        service = self.services.get(name)
        if request.task is None and service is None and not self.broken("psb.run_hook.unknown"):
            self._service(name)
        hook = ReferenceHook(request, service.request if service else request.task, broken=self.broken)
        if request.task is not None and self.broken("psb.exec.task"):
            self.services[name] = Service(request.task)
        if not request.hook.http:
            return await hook.command()
        if service is not None and service.app is not None:
            hook.call(service.app)
        return HookRan()


def _content(request: DeployService) -> bytes:
    return msgspec.json.encode((request.spec, request.environment, request.secret_environment))
