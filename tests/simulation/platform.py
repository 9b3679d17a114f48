"""A simulated platform broker: app services, their health, and the holds of their writers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar

from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.progress import Reporter
from schemas import brokers as wire
from tests.simulation.loop import Process
from tests.simulation.works import MemoryOutcomes, SimBroker, Surroundings


@dataclass
class Hold:
    """A writer that is held still, and how that ended. Kept for the judge."""

    id: str
    operation: str
    instance: str
    service: str
    since: float
    until: float
    acknowledged: bool = False
    ended: float | None = None
    how: str = ""
    asked: bool = False
    """Whether somebody came to let it go, in time or not."""

    def over(self, now: float) -> bool:
        """Let go by its deadline at the latest."""
        if self.ended is None and now > self.until:
            self.ended, self.how = self.until, "deadline"
        return self.ended is not None

    @property
    def unbroken(self) -> bool:
        """Whether the one who held it also let it go."""
        return self.acknowledged and self.how == "thaw"


@dataclass
class App:
    """An app service as the platform holds it."""

    state: str = "deploying"
    healthy_from: float = 0.0
    space: wire.DeployService | None = None


@dataclass
class PlatformDisk:
    """What outlives the broker; app services run on while it is away."""

    outcomes: MemoryOutcomes = field(default_factory=MemoryOutcomes)
    apps: dict[tuple[str, str], App] = field(default_factory=dict)
    holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    diary: list[Hold] = field(default_factory=list)
    hooks: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Every hook that was called: phase, operation, instance, service."""


class Platform(SimBroker):
    """The platform broker of one site."""

    remembered: ClassVar[frozenset[str]] = frozenset({"pause", "resume", "exec_hook"})

    def __init__(self, around: Surroundings, process: Process, *, name: str, disk: PlatformDisk) -> None:
        super().__init__(around, process, kind="psb", name=name, outcomes=disk.outcomes)
        self._disk = disk
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def info(self, _request: wire.InfoRequest) -> wire.PsbInfo:
        return wire.PsbInfo(
            name=self.settings.name, version="1", artifacts=("process",), hooks=("http", "run", "exec", "task")
        )

    async def deploy(self, request: wire.DeployService, reporter: Reporter) -> wire.Deployed:
        key = (request.instance, request.service)
        await self.point("deploy", "before")
        before = self._disk.apps.get(key)
        app = self._disk.apps[key] = before or App()
        try:
            await self.point("deploy", "amid", pieces=5)
            app.state = "running"
            await self.point("deploy", "after")
        except asyncio.CancelledError:
            if reporter.cancelling and not self.process.dead and before is None:
                self._disk.apps.pop(key, None)
            raise
        return wire.Deployed(host="h", port=80, url=f"http://{request.instance}/{request.service}")

    async def scale(self, request: wire.ScaleService, _reporter: Reporter) -> wire.Done:
        await self.point("scale", "before")
        key = (request.instance, request.service)
        if (app := self._disk.apps.get(key)) is not None:
            app.state = "stopped"
            self._break(key)
        await self.point("scale", "after")
        return wire.Done()

    async def remove(self, request: wire.RemoveService, _reporter: Reporter) -> wire.Done:
        await self.point("remove", "before")
        key = (request.instance, request.service)
        self._break(key)
        self._disk.apps.pop(key, None)
        await self.point("remove", "after")
        return wire.Done()

    async def pause(self, request: wire.PauseService) -> wire.Held:
        return await self._hold(request, request.deadline_seconds)

    async def resume(self, request: wire.ResumeService) -> wire.Held:
        return await self._let_go(request)

    async def exec_hook(self, request: wire.ExecHook) -> wire.Held:
        if request.phase == "quiesce":
            return await self._hold(request, request.deadline_seconds)
        return await self._let_go(request)

    async def run_hook(self, request: wire.RunHook, _reporter: Reporter) -> wire.HookRan:
        self._disk.hooks.append((request.phase, request.operation, request.instance, request.service))
        key = (request.instance, request.service)
        if (request.task is None) != (key in self._disk.apps):
            raise permanent_error("not_found", f"{request.service} is {'not ' if request.task is None else ''}there")
        await self.point("hook", "before")
        await self.point("hook", "after")
        return wire.HookRan()

    async def describe(self, request: wire.DescribeServices) -> wire.ServicesDescription:
        now = self.around.loop.time()
        await asyncio.sleep(self.around.fate.delay())
        return wire.ServicesDescription(
            services=tuple(
                wire.ServiceStatus(
                    instance=instance,
                    service=service,
                    state="running" if app.state == "running" else "stopped",
                    healthy=app.state == "running" and now >= app.healthy_from,
                )
                for (instance, service), app in self._disk.apps.items()
            )
        )

    async def _hold(self, request: wire.PauseService | wire.ExecHook, seconds: float) -> wire.Held:
        key = (request.instance, request.service)
        async with self._locks.setdefault(key, asyncio.Lock()):
            await self.point("quiesce", "before")
            app = self._disk.apps.get(key)
            if app is None or app.state != "running":
                raise permanent_error("service_not_running", f"{request.service} does not run")
            now = self.around.loop.time()
            known = self._disk.holds.get(key)
            if known is not None and known.id == request.id:
                if known.over(now):
                    return wire.Held(held=False, message="that hold is over")
            elif known is not None and not known.over(now):
                raise temporary_error("busy", "the service is held by another request")
            else:
                known = self._disk.holds[key] = Hold(
                    request.id, request.operation, request.instance, request.service, now, now + seconds
                )
                self._disk.diary.append(known)
                self.note("holds", *key)
            await self.point("quiesce", "after")
            known.acknowledged = True
            return wire.Held(held=True)

    async def _let_go(self, request: wire.ResumeService | wire.ExecHook) -> wire.Held:
        key = (request.instance, request.service)
        async with self._locks.setdefault(key, asyncio.Lock()):
            await self.point("thaw", "before")
            now = self.around.loop.time()
            known = self._disk.holds.get(key)
            if known is None or known.operation != request.operation:
                return wire.Held(held=False, message="no such hold is on record")
            known.asked = True
            if not known.over(now):
                known.ended, known.how = now, "thaw"
                self.note("lets go", *key)
            await self.point("thaw", "after")
            return wire.Held(held=known.unbroken, message=known.how)

    def _break(self, key: tuple[str, str]) -> None:
        hold = self._disk.holds.get(key)
        if hold is not None and not hold.over(self.around.loop.time()):
            hold.ended, hold.how = self.around.loop.time(), "stopped"
