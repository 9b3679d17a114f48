"""The Kubernetes platform broker: the platform's operations as a broker of the SDK."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import ClassVar

from brokers.kubernetes.calls import Calls
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.commands import Commands
from brokers.kubernetes.failures import ApiError, Unreachable, problem_of
from brokers.kubernetes.holds import Holds
from brokers.kubernetes.hooks import Hooks
from brokers.kubernetes.inventory import Inventory
from brokers.kubernetes.names import Owner
from brokers.kubernetes.platform import KubernetesPlatform
from brokers.kubernetes.settings import KubernetesSettings
from brokers.kubernetes.statuses import status_of
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
from schemas.problems import CalqueError, Problem, invalid

logger = logging.getLogger(__name__)

_MOST_LINES = 10_000
_VERSION_SECONDS = 1.0


class KubernetesBroker(Broker):
    """Runs app services on a Kubernetes cluster."""

    description: ClassVar[str] = "runs app services on a Kubernetes cluster"
    remembered: ClassVar[frozenset[str]] = frozenset({"pause", "resume", "exec_hook"})

    def __init__(self, settings: KubernetesSettings) -> None:
        super().__init__(settings)
        self._spaces = settings.spaces
        self._version = ""
        owner = Owner(settings.site, settings.name)
        self._cluster = Cluster(settings)
        self._inventory = Inventory(self._cluster, owner, [settings.namespace(space) for space in settings.spaces])
        self._platform = KubernetesPlatform(settings, self._cluster, self._inventory, owner)
        self._holds = Holds(settings, self._cluster, self._platform, owner)
        self._calls = Calls(settings, self._cluster)
        commands = Commands(settings, self._cluster, owner)
        self._hooks = Hooks(self._platform, self._inventory, self._calls, commands)

    async def start(self) -> None:
        self._inventory.start()
        self._hooks.start()

    async def stop(self) -> None:
        await self._hooks.stop()
        await self._inventory.stop()
        await self._calls.close()
        await self._cluster.close()

    def explain(self, error: BaseException) -> Problem | None:
        return problem_of(error)

    async def info(self, _: InfoRequest) -> PsbInfo:
        return PsbInfo(
            name=self.settings.name,
            version=SERVICE_VERSION,
            artifacts=("image",),
            spaces=self._spaces,
            hooks=("http", "run", "exec", "task"),
            engine="kubernetes",
            engine_version=await self._engine_version(),
        )

    async def spaces(self, _: SpacesRequest) -> Spaces:
        return Spaces(spaces=self._spaces)

    async def deploy(self, request: DeployService, reporter: Reporter) -> Deployed:
        return await self._platform.deploy(request, cancelling=lambda: reporter.cancelling, tell=_teller(reporter))

    async def scale(self, request: ScaleService, reporter: Reporter) -> Done:
        await self._platform.scale(request, tell=_teller(reporter))
        return Done()

    async def remove(self, request: RemoveService, _: Reporter) -> Done:
        await self._platform.remove(request)
        return Done()

    async def pause(self, request: PauseService) -> Held:
        return await self._holds.pause(request)

    async def resume(self, request: ResumeService) -> Held:
        return await self._holds.resume(request)

    async def exec_hook(self, request: ExecHook) -> Held:
        return await self._hooks.call(request)

    async def run_hook(self, request: RunHook, _: Reporter) -> HookRan:
        return await self._hooks.run(request)

    async def describe(self, request: DescribeServices) -> ServicesDescription:
        await self._inventory.synced()
        now = time.time()
        found = (
            status_of(deployment, self._inventory.pods_of(namespace, deployment), now=now)
            for namespace, deployment in self._inventory.deployments()
        )
        return ServicesDescription(services=tuple(each for each in found if request.instance in (None, each.instance)))

    async def logs(self, request: LogsRequest) -> LogLines:
        if not 0 <= request.lines <= _MOST_LINES:
            raise CalqueError(invalid("lines", f"{request.lines} is not between 0 and {_MOST_LINES}"))
        lines = await self._platform.logs(instance=request.instance, service=request.service, lines=request.lines)
        return LogLines(lines=lines)

    async def _engine_version(self) -> str:
        """Empty until the cluster was reached once."""
        if not self._version:
            try:
                async with asyncio.timeout(_VERSION_SECONDS):
                    self._version = await self._cluster.version()
            except (ApiError, Unreachable, TimeoutError) as error:
                logger.info("the version of the cluster is not known yet: %s", error)
        return self._version

    async def health(self, request: DataServiceHealth) -> Health:
        """The cluster's own health; what its services say is in ``describe``."""
        if request.service_id is not None:
            raise CalqueError(invalid("service_id", "a platform has no data services", "ask describe"))
        try:
            await self._cluster.ready()
        except (ApiError, Unreachable) as error:
            return Health(healthy=False, message=str(error))
        return Health(healthy=not self._inventory.trouble, message=self._inventory.trouble)


def _teller(reporter: Reporter) -> Callable[[str], None]:
    return lambda words: reporter.report(done=0, message=words)
