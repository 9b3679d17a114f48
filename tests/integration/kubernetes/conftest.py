"""A cluster of the test's own in this process, and the broker's platform on it without the bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest_asyncio

from brokers.kubernetes.calls import Calls
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.commands import Commands
from brokers.kubernetes.holds import Holds
from brokers.kubernetes.hooks import Hooks
from brokers.kubernetes.inventory import Inventory
from brokers.kubernetes.names import Owner, ServiceKey
from brokers.kubernetes.platform import KubernetesPlatform
from brokers.kubernetes.settings import KubernetesSettings
from brokers.kubernetes.statuses import status_of
from bus.settings import BusSection
from schemas.brokers import Deployed, DeployService, ServiceStatus
from schemas.ids import new_id
from schemas.problems import CalqueError, Problem
from schemas.values import HealthCheck, Hook
from schemas.values import Hooks as HooksSpec
from tests.integration.kubernetes.services import SPEC, give_app, settings
from tests.integration.kubernetes.simulated.api import SimulatedCluster
from tests.integration.kubernetes.simulated.store import Object
from tests.patience import patience

INSTANCE = "01a1-instance"
OF_SPEC = ("artifact", "type", "port", "health", "hooks", "restart")


class Platform:
    """One broker's parts, as the broker puts them together; a second one is what a restarted broker is."""

    def __init__(self, cluster: SimulatedCluster, directory: Path, **changes: Any) -> None:
        self.settings = KubernetesSettings(
            bus=BusSection(servers=["nats://nowhere.test:1"], name="none"),
            site="north",
            kind="psb",
            name="kubernetes",
            state_dir=directory / "state",
            **{**settings(directory, cluster), **changes},
        )
        owner = Owner("north", "kubernetes")
        namespaces = [self.settings.namespace(space) for space in self.settings.spaces]
        self.simulated = cluster
        self.cluster = Cluster(self.settings)
        self.inventory = Inventory(self.cluster, owner, namespaces)
        self.platform = KubernetesPlatform(self.settings, self.cluster, self.inventory, owner)
        self.holds = Holds(self.settings, self.cluster, self.platform, owner)
        self.calls = Calls(self.settings, self.cluster)
        self.hooks = Hooks(self.platform, self.inventory, self.calls, Commands(self.settings, self.cluster, owner))
        self.told: list[str] = []

    async def start(self) -> None:
        self.inventory.start()
        self.hooks.start()

    async def stop(self) -> None:
        await self.hooks.stop()
        await self.inventory.stop()
        await self.calls.close()
        await self.cluster.close()

    async def deploy(self, request: DeployService, *, cancelling: Callable[[], bool] = lambda: False) -> Deployed:
        return await self.platform.deploy(request, cancelling=cancelling, tell=self.told.append)

    async def fails(self, request: DeployService) -> Problem:
        try:
            await self.deploy(request)
        except CalqueError as error:
            return error.problem
        raise AssertionError("it was deployed")

    def status(self, service: str = "web") -> ServiceStatus:
        found = self.inventory.find(ServiceKey(INSTANCE, service))
        assert found is not None
        return status_of(found[1], self.inventory.pods_of(*found), now=0.0)

    async def until(self, holds: Callable[[], bool], *, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + patience(seconds)
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds} s; {self.inventory.trouble}"
            await asyncio.sleep(0.02)

    def of(self, plural: str) -> list[Object]:
        return self.simulated.store.all(plural)


def request_for(service: str = "web", **changes: Any) -> DeployService:
    """A deployment of the kit's app; changes of its spec are told from those of the request by their names."""
    spec = msgspec.structs.replace(
        SPEC,
        health=HealthCheck(path="/health", interval_seconds=1, start_period_seconds=5),
        hooks=HooksSpec(quiesce=Hook(http="POST /quiesce"), thaw=Hook(http="POST /thaw")),
        stop_grace_seconds=1.0,
    )
    of_spec = {name: changes.pop(name) for name in OF_SPEC if name in changes}
    return msgspec.structs.replace(
        DeployService(
            id=new_id(),
            instance=INSTANCE,
            service=service,
            spec=msgspec.structs.replace(spec, **of_spec),
            labels={"instance_name": "demo"},
        ),
        **changes,
    )


@pytest_asyncio.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[SimulatedCluster]:
    cluster = SimulatedCluster()
    give_app(cluster, tmp_path)
    await cluster.start()
    yield cluster
    await cluster.stop()
    await asyncio.sleep(0)


@pytest_asyncio.fixture
async def platform(simulated: SimulatedCluster, tmp_path: Path) -> AsyncIterator[Platform]:
    made = Platform(simulated, tmp_path)
    await made.start()
    yield made
    await made.stop()
