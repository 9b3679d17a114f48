"""Means of a check of a platform broker."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from brokers.testkit.bench import Bench, name_of
from brokers.testkit.checks import NotApplicable, Unmet, holds
from schemas.artifact_digest import tree_digest
from schemas.brokers import (
    Change,
    Deployed,
    DeployService,
    DescribeServices,
    Done,
    ExecHook,
    Held,
    LogLines,
    LogsRequest,
    PauseService,
    RemoveService,
    ResumeService,
    RunHook,
    ScaleService,
    ServicesDescription,
    ServiceStatus,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from schemas.values import Artifact, HealthCheck, Hook, Hooks, ServiceSpec

APP = Path(__file__).with_name("app.py")
SILENCE_SECONDS = 0.5
"""A service that answers nothing for this long is held or gone."""


class About(NamedTuple):
    """What the app says of itself."""

    run: str
    environment: dict[str, str]
    called: list[list[Any]]


class Silent(NamedTuple):
    """What came instead of an answer of the app."""

    cause: str


class PsbBench(Bench):
    """Deploys the kit's app under instances of its own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.instance = name_of("conform")
        self._services: set[str] = set()

    # --- for the checks of all kinds

    async def operation(self) -> tuple[str, Change]:
        return "deploy", self.deploy_request()

    async def stalled(self) -> tuple[str, Change]:
        service = f"stalled-{len(self._services)}"
        return "deploy", self.deploy_request(service, environment={"CONFORM_HEALTH": "never"})

    async def relieved(self, stalled: Change) -> tuple[str, Change]:
        assert isinstance(stalled, DeployService)
        return "deploy", self.deploy_request(stalled.service)

    def other(self, id: str) -> tuple[str, Change]:
        return "remove", RemoveService(id=id, instance=self.instance, service="nobody")

    async def traces(self, request: Change) -> list[str]:
        assert isinstance(request, DeployService)
        found = [each for each in await self.describe() if each.service == request.service]
        return [f"{each.service} {each.state}" for each in found]

    async def forget(self) -> None:
        for service in self._services:
            request = RemoveService(id=new_id(), instance=self.instance, service=service)
            await self.talk.finish("remove", request)

    # --- services

    def spec(self, *, start_period_seconds: float = 30.0) -> ServiceSpec:
        """The kit's app as a service."""
        given = self.options.spec
        if given is None:
            directory = self.directory / "app"
            if not directory.exists():
                directory.mkdir()
                shutil.copy(APP, directory / "app.py")
            artifact = Artifact(directory=str(directory), command=("python", "app.py"), digest=tree_digest(directory))
            given = ServiceSpec(artifact=artifact, port=8080)
        health = HealthCheck(path="/health", interval_seconds=0.1, start_period_seconds=start_period_seconds)
        hooks = Hooks(quiesce=Hook(http="POST /quiesce"), thaw=Hook(http="POST /thaw"))
        return msgspec.structs.replace(given, health=health, hooks=hooks, stop_grace_seconds=1.0)

    def deploy_request(
        self,
        service: str = "web",
        *,
        environment: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
        start_period_seconds: float = 30.0,
        space: str = "default",
    ) -> DeployService:
        """Run the app."""
        self._services.add(service)
        return DeployService(
            id=new_id(),
            instance=self.instance,
            service=service,
            spec=self.spec(start_period_seconds=start_period_seconds),
            environment=environment or {},
            secret_environment={name: Secret(value=value) for name, value in (secrets or {}).items()},
            labels={"instance_name": "conformance"},
            space=space,
        )

    async def deploy(self, request: DeployService | None = None) -> str:
        """Deploy; where it answers."""
        deployed = await self.talk.run("deploy", request or self.deploy_request(), Deployed)
        if not deployed.url:
            raise Unmet("deploy succeeded and tells no url of a service that has a port")
        return deployed.url

    async def describe(self, instance: str | None = None) -> tuple[ServiceStatus, ...]:
        """What the platform shows of an instance; of ours unless named."""
        request = DescribeServices(instance=instance or self.instance)
        return (await self.talk.ask("describe", request, ServicesDescription)).services

    async def status_of(self, service: str = "web") -> ServiceStatus:
        """Of one service of ours."""
        found = [each for each in await self.describe() if each.service == service]
        holds(len(found) == 1, f"describe shows {service} {len(found)} times")
        return found[0]

    async def remove(self, service: str = "web") -> None:
        """Remove it."""
        await self.talk.run("remove", RemoveService(id=new_id(), instance=self.instance, service=service), Done)

    async def scale(self, replicas: int, *, service: str = "web") -> None:
        """Stop or start it."""
        await self.talk.run("scale", self.scale_request(replicas, service=service), Done)

    def scale_request(self, replicas: int, *, service: str = "web") -> ScaleService:
        return ScaleService(id=new_id(), instance=self.instance, service=service, replicas=replicas)

    def pause_request(self, *, deadline_seconds: float = 30.0, service: str = "web") -> PauseService:
        return PauseService(id=new_id(), instance=self.instance, service=service, deadline_seconds=deadline_seconds)

    def resume_request(self, pause: str = "", *, service: str = "web") -> ResumeService:
        return ResumeService(id=new_id(), instance=self.instance, service=service, pause=pause)

    def hook_request(self, phase: Any, *, operation: str = "", path: str = "") -> ExecHook:
        return ExecHook(
            id=new_id(),
            operation=operation,
            instance=self.instance,
            service="web",
            phase=phase,
            hook=Hook(http=f"POST {path or '/' + phase}"),
        )

    def run_hook_request(
        self,
        phase: Any,
        *,
        http: str = "",
        command: str = "",
        task: DeployService | None = None,
        timeout_seconds: float = 30.0,
    ) -> RunHook:
        """Run a hook: a call, or one of the commands of the kit's app."""
        words = (*self.spec().artifact.command, "hook", command) if command else ()
        hook = Hook(http=http, exec=words, timeout_seconds=timeout_seconds)
        return RunHook(id=new_id(), instance=self.instance, service="web", phase=phase, hook=hook, task=task)

    async def can_call(self, kind: str) -> None:
        """Goes on only on a platform that can call hooks of this kind."""
        if kind not in (await self.info()).hooks:
            raise NotApplicable(f"the platform can't call hooks of the kind {kind}")

    async def can_pause(self) -> None:
        """Goes on only on a platform that can."""
        if not (await self.info()).can_pause:
            raise NotApplicable("the platform can't pause")

    async def logs(self, lines: int = 100, *, service: str = "web") -> tuple[str, ...]:
        """The last lines."""
        request = LogsRequest(instance=self.instance, service=service, lines=lines)
        return (await self.talk.ask("logs", request, LogLines)).lines

    # --- the app itself

    async def about(self, url: str) -> About:
        """What the app says; fails when it does not answer."""
        found = await self._call("GET", f"{url}/about", seconds=self.talk.patience_seconds)
        if isinstance(found, Silent):
            raise Unmet(f"the service does not answer at {url}: {found.cause}")
        return About(**json.loads(found))

    async def must_answer(self, url: str, otherwise: str) -> None:
        """Go on when the app answers, however busy the machine is."""

        async def now() -> bool:
            return await self.answers(url)

        await self.until(now, otherwise)

    async def answers(self, url: str) -> bool:
        """Whether the app answers now: what is held or gone does not, and a busy machine may not."""
        return not isinstance(await self._call("GET", f"{url}/health", seconds=SILENCE_SECONDS), Silent)

    async def tell(self, url: str, path: str) -> None:
        """Make the app do something."""
        await self._call("POST", f"{url}{path}", seconds=self.talk.patience_seconds)

    async def reach(self, url: str, path: str) -> None:
        """As :meth:`tell`, also when the platform lets nothing but hooks through to a service that is ill."""
        if isinstance(await self._call("POST", f"{url}{path}", seconds=self.talk.patience_seconds), Silent):
            await self.talk.ask("exec_hook", self.hook_request("thaw", operation=new_id(), path=path), Held)

    async def _call(self, method: str, url: str, *, seconds: float) -> bytes | Silent:
        timeout = aiohttp.ClientTimeout(total=seconds)
        connector = aiohttp.TCPConnector(force_close=True)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
                session.request(method, url) as response,
            ):
                return await response.read()
        except TimeoutError:
            return Silent(f"nothing came within {seconds:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Silent(f"{type(error).__name__}: {error}")
