"""The process platform broker: the platform's operations as a broker of the SDK."""

from __future__ import annotations

import asyncio
import platform
from typing import ClassVar

from brokers.process.layout import StateLayout
from brokers.process.platform import SPACE, ProcessPlatform
from brokers.process.settings import ProcessSettings
from brokers.process.telling import LogTeller
from brokers.sdk.progress import Reporter
from brokers.sdk.service import Broker
from schemas.brokers import (
    SERVICE_VERSION,
    DataServiceHealth,
    Deployed,
    DeployService,
    DescribeServices,
    Done,
    ExecHook,
    Health,
    Held,
    HookRan,
    InfoRequest,
    LogLines,
    LogsRequest,
    PauseService,
    PsbInfo,
    RemoveService,
    ResumeService,
    RunHook,
    ScaleService,
    ServicesDescription,
    Spaces,
    SpacesRequest,
)
from schemas.problems import CalqueError, invalid

_MOST_LINES = 10_000


class ProcessBroker(Broker):
    """Runs app services as local processes."""

    description: ClassVar[str] = "runs app services as local processes"
    remembered: ClassVar[frozenset[str]] = frozenset({"pause", "resume", "exec_hook"})

    def __init__(self, settings: ProcessSettings) -> None:
        super().__init__(settings)
        self._stop_seconds = settings.stop_seconds
        self._teller = LogTeller(settings)
        self._platform = ProcessPlatform(StateLayout(settings.state_dir.absolute()), tell=self._teller.tell)

    async def start(self) -> None:
        self._teller.start()
        await self._platform.open()

    async def stop(self) -> None:
        await self._platform.close(grace_seconds=self._stop_seconds)
        await self._teller.stop()

    def let_go(self) -> None:
        """After the broker's end: give up the state directory, if :meth:`stop` did not come so far."""
        self._platform.let_go()

    async def info(self, _: InfoRequest) -> PsbInfo:
        return PsbInfo(
            name=self.settings.name,
            version=SERVICE_VERSION,
            artifacts=("process",),
            spaces=(SPACE,),
            hooks=("http", "run", "exec", "task"),
            engine="python",
            engine_version=platform.python_version(),
        )

    async def spaces(self, _: SpacesRequest) -> Spaces:
        return Spaces(spaces=(SPACE,))

    async def deploy(self, request: DeployService, reporter: Reporter) -> Deployed:
        return await self._platform.deploy(request, cancelling=lambda: reporter.cancelling)

    async def scale(self, request: ScaleService, _: Reporter) -> Done:
        await self._platform.scale(request)
        return Done()

    async def remove(self, request: RemoveService, _: Reporter) -> Done:
        await self._platform.remove(request)
        return Done()

    async def pause(self, request: PauseService) -> Held:
        return await self._platform.pause(request)

    async def resume(self, request: ResumeService) -> Held:
        return await self._platform.resume(request)

    async def exec_hook(self, request: ExecHook) -> Held:
        return await self._platform.hook(request)

    async def run_hook(self, request: RunHook, _: Reporter) -> HookRan:
        return await self._platform.run_hook(request)

    async def describe(self, request: DescribeServices) -> ServicesDescription:
        return ServicesDescription(services=self._platform.describe(request.instance))

    async def logs(self, request: LogsRequest) -> LogLines:
        if not 0 <= request.lines <= _MOST_LINES:
            raise CalqueError(invalid("lines", f"{request.lines} is not between 0 and {_MOST_LINES}"))
        lines = await asyncio.to_thread(
            self._platform.logs, instance=request.instance, service=request.service, lines=request.lines
        )
        return LogLines(lines=lines)

    async def health(self, request: DataServiceHealth) -> Health:
        """The platform's own health; what its services say is in ``describe``."""
        if request.service_id is not None:
            raise CalqueError(invalid("service_id", "a platform has no data services", "ask describe"))
        return Health(healthy=True)
