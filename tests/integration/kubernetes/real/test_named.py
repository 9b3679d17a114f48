"""The broker on the cluster that KUBECONFIG names, with the rights that it gives, in namespaces of the test's own.

Nodes may be kubelets or kwok's (with the stages beside this file): nothing is asked of what runs but that it runs.
CALQUE_KUBERNETES_IMAGE is what runs: an image that only waits.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.failures import ApiError
from brokers.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, JOB, POD, SECRET, SERVICE, Kind
from brokers.kubernetes.names import BROKER, Owner, ServiceKey, selector
from brokers.kubernetes.settings import KubernetesSettings
from bus.connection import Bus, BusSettings
from bus.settings import BusSection
from schemas.brokers import (
    CONTRACTS,
    Change,
    DataServiceHealth,
    Deployed,
    DeployService,
    DescribeServices,
    Done,
    Health,
    Held,
    InfoRequest,
    PauseService,
    PsbInfo,
    RemoveService,
    Reply,
    ResumeService,
    ScaleService,
    ServicesDescription,
    ServiceStatus,
)
from schemas.envelope import convert
from schemas.ids import new_id
from schemas.problems import Problem
from schemas.secrets import Secret
from schemas.values import Artifact, ServiceSpec
from tests.integration.broker_process import BrokerProcess
from tests.servers import NatsServer

KUBECONFIG = Path(os.environ.get("KUBECONFIG") or "nothing")
IMAGE = os.environ.get("CALQUE_KUBERNETES_IMAGE") or "registry.k8s.io/pause:3.10"
MISSING_IMAGE = "registry.test/missing:1"
"""No registry has it: nothing below .test has an address. kwok's stages know it too."""

pytestmark = [
    pytest.mark.full,
    pytest.mark.xdist_group("kubernetes"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(not KUBECONFIG.is_file(), reason="no cluster: KUBECONFIG names no file"),
]

NAMESPACE = Kind("Namespace", "api/v1", "")
"""Of no namespace itself: it lies where the others have theirs."""
SERVICE_ACCOUNT = Kind("ServiceAccount", "api/v1", "serviceaccounts")
KINDS = (DEPLOYMENT, POD, SERVICE, CONFIG_MAP, SECRET, JOB)
SPACES = ("default", "other")
MARK = {"calque/test": "named"}
"""On the namespaces: by it one finds what a run left that was killed."""
PULL_SECONDS = 180.0
GONE_SECONDS = 180.0
R = TypeVar("R", bound=Reply)
Object = dict[str, Any]


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        await asyncio.sleep(0.2)


class Named:
    """The cluster as the test itself sees it, by the same kubeconfig."""

    def __init__(self, state: Path) -> None:
        self.settings = KubernetesSettings(
            bus=BusSection(servers=["nats://nowhere.test:1"], name="none"),
            site="north",
            kind="psb",
            name="named",
            state_dir=state,
            kubeconfig=KUBECONFIG.absolute(),
            namespace_prefix=f"calque-test-{new_id()[-12:]}-",
            spaces=SPACES,
        )
        self.owner = Owner(self.settings.site, self.settings.name)
        self.cluster = Cluster(self.settings)
        self.namespaces = [self.settings.namespace(space) for space in SPACES]
        self._made: dict[str, str] = {}

    async def start(self) -> None:
        """Make the namespaces. Raises the ``ApiError`` 403 before anything is made that could not be removed."""
        for name in self.namespaces:
            await self.cluster.delete(NAMESPACE, name, "", uid="none")
        for name in self.namespaces:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": MARK}}
            self._made[name] = (await self.cluster.create(NAMESPACE, "", body))["metadata"]["uid"]
        for name in self.namespaces:
            # without it no pod of the namespace is admitted
            await until(partial(self._has_account, name), seconds=60, what=f"{name} has an account")

    async def stop(self) -> None:
        """Remove what ``start`` made, and wait until it is gone."""
        for name, uid in self._made.items():
            await self.cluster.delete(NAMESPACE, name, "", uid=uid)
        for name in self._made:
            await until(partial(self._is_gone, name), seconds=GONE_SECONDS, what=f"{name} is gone")
        await self.cluster.close()

    async def ours(self) -> list[Object]:
        """All that carries the labels of the broker, in all its namespaces."""
        found: list[Object] = []
        for namespace in self.namespaces:
            for kind in KINDS:
                found += (await self.cluster.list(kind, namespace, labels=selector(self.owner.labels())))[0]
        return found

    async def _has_account(self, namespace: str) -> bool:
        return await self.cluster.get(SERVICE_ACCOUNT, namespace, "default") is not None

    async def _is_gone(self, namespace: str) -> bool:
        return await self.cluster.get(NAMESPACE, namespace, "") is None


class Scene:
    """One instance of the test's own on the cluster."""

    def __init__(self, named: Named, broker: BrokerProcess) -> None:
        self.named = named
        self.cluster = named.cluster
        self.broker = broker
        self.instance = f"test-{new_id()}"

    def request(self, *, image: str = IMAGE, space: str = "default") -> DeployService:
        return DeployService(
            id=new_id(),
            instance=self.instance,
            service="job",
            spec=ServiceSpec(artifact=Artifact(type="image", image=image), type="worker", stop_grace_seconds=1.0),
            space=space,
            environment={"COLOUR": "red"},
            secret_environment={"PASS": Secret(value="very-secret")},
            labels={"instance_name": "named"},
        )

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(self.instance, "job")

    async def run(self, operation: str, request: Change, result: type[R]) -> R:
        outcome = await self.broker.begin(operation, request)
        if outcome.state == "running":
            outcome = await self.broker.ended(request.id, seconds=2 * PULL_SECONDS)
        assert CONTRACTS["psb"][operation].result is result
        assert outcome.state == "succeeded", outcome
        return convert(outcome.result, result)

    async def fails(self, request: DeployService) -> Problem:
        outcome = await self.broker.begin("deploy", request)
        if outcome.state == "running":
            outcome = await self.broker.ended(request.id, seconds=2 * PULL_SECONDS)
        assert outcome.problem is not None, outcome
        return outcome.problem

    async def deploy(self, request: DeployService) -> Deployed:
        return await self.run("deploy", request, Deployed)

    async def scale(self, replicas: int) -> None:
        request = ScaleService(id=new_id(), instance=self.instance, service="job", replicas=replicas)
        await self.run("scale", request, Done)

    async def remove(self) -> None:
        await self.run("remove", RemoveService(id=new_id(), instance=self.instance, service="job"), Done)

    async def status(self) -> ServiceStatus:
        found = await self.broker.ask("describe", DescribeServices(instance=self.instance), ServicesDescription)
        assert [each.service for each in found.services] == ["job"]
        return found.services[0]

    async def deployment(self) -> Object:
        found = await self.cluster.get(DEPLOYMENT, self.named.namespaces[0], self.key.object)
        assert found is not None
        return found

    async def pods(self) -> list[Object]:
        """Those that are there and not on their way out."""
        labels = selector(self.key.labels(self.named.owner))
        found, _ = await self.cluster.list(POD, self.named.namespaces[0], labels=labels)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def named(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Named]:
    made = Named(tmp_path_factory.mktemp("named"))
    try:
        await made.start()
        yield made
    except ApiError as error:
        if error.status not in (401, 403):
            raise
        pytest.skip(f"the account of KUBECONFIG may not make and remove namespaces: {error.message}")
    finally:
        await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def broker(
    named: Named, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BrokerProcess]:
    bus = await Bus.connect(BusSettings(servers=[nats_server.url], name="named"))
    made = BrokerProcess(
        "brokers.kubernetes",
        bus=bus,
        nats_url=nats_server.url,
        kind="psb",
        name=named.settings.name,
        directory=tmp_path_factory.mktemp("named-broker"),
        kubeconfig=str(named.settings.kubeconfig),
        namespace_prefix=named.settings.namespace_prefix,
        spaces=SPACES,
        hold_image=IMAGE,
        rollout_seconds=PULL_SECONDS,
    )
    await made.start()
    try:
        yield made
        told = made.log.read_text()
        assert "Traceback" not in told, told
        assert "very-secret" not in told
    finally:
        await made.stop()
        await bus.close()


@pytest_asyncio.fixture
async def scene(named: Named, broker: BrokerProcess) -> AsyncIterator[Scene]:
    made = Scene(named, broker)
    yield made
    await made.remove()
    left = await named.ours()
    assert [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in left] == []


async def test_what_it_is(scene: Scene) -> None:
    info = await scene.broker.ask("info", InfoRequest(), PsbInfo)
    assert (info.engine, info.engine_version) == ("kubernetes", await scene.cluster.version())
    assert (info.artifacts, info.spaces) == (("image",), SPACES)

    async def healthy() -> bool:  # it is not before it has listed what is there
        return (await scene.broker.ask("health", DataServiceHealth(), Health)).healthy

    await until(healthy, seconds=20, what="it is healthy")


async def test_an_image_runs_and_the_same_again_is_no_change(scene: Scene) -> None:
    first = await scene.deploy(scene.request())
    assert (first.host, first.port, first.url) == (None, None, None)
    before, pods = await scene.deployment(), await scene.pods()
    assert len(pods) == 1
    assert await scene.deploy(scene.request()) == first
    assert (await scene.deployment())["spec"] == before["spec"]
    assert [pod["metadata"]["uid"] for pod in await scene.pods()] == [pods[0]["metadata"]["uid"]]
    status = await scene.status()
    assert (status.state, status.healthy, status.paused, status.restarts) == ("running", True, False, 0), status
    assert status.labels == {"instance_name": "named"}
    assert "very-secret" not in str(before) + str(pods)


async def test_a_space_is_a_namespace(scene: Scene) -> None:
    await scene.deploy(scene.request(space="other"))
    assert await scene.pods() == []
    found = {(each["metadata"]["namespace"], each["metadata"]["labels"][BROKER]) for each in await scene.named.ours()}
    assert found == {(scene.named.namespaces[1], "named")}


async def test_scale_to_nothing_and_back(scene: Scene) -> None:
    await scene.deploy(scene.request())
    for replicas, state in ((0, "stopped"), (1, "running")):
        await scene.scale(replicas)
        status = await scene.status()
        assert (status.state, len(await scene.pods())) == (state, replicas), status


async def test_a_pause_holds_until_it_is_resumed(scene: Scene) -> None:
    await scene.deploy(scene.request())
    before = await scene.pods()
    pause = PauseService(id=new_id(), instance=scene.instance, service="job", deadline_seconds=120)
    held = await scene.broker.ask("pause", pause, Held)
    assert held.held, held.message
    waiting = await scene.pods()
    assert [pod["spec"].get("nodeName") for pod in waiting] in ([], [None])
    assert {pod["metadata"]["uid"] for pod in waiting}.isdisjoint(pod["metadata"]["uid"] for pod in before)
    status = await scene.status()
    assert (status.paused, status.healthy) == (True, False), status
    resume = ResumeService(id=new_id(), instance=scene.instance, service="job", pause=pause.id)
    resumed = await scene.broker.ask("resume", resume, Held)
    assert resumed.held, resumed.message

    async def healthy() -> bool:
        found = await scene.status()
        return found.healthy and not found.paused

    await until(healthy, seconds=PULL_SECONDS, what="it runs again")


async def test_a_wrong_image_is_told_by_its_cause(scene: Scene) -> None:
    problem = await scene.fails(scene.request(image=MISSING_IMAGE))
    assert (problem.code, problem.temporary) == ("image_pull", False), problem
    status = await scene.status()
    assert (status.state, "image" in status.message) == ("failed", True), status
    await scene.deploy(scene.request())
    assert (await scene.status()).healthy


async def test_what_is_not_ours_is_refused_and_stays(scene: Scene) -> None:
    namespace = scene.named.namespaces[0]
    neighbours = {**scene.key.labels(scene.named.owner), BROKER: "another"}
    foreign = {scene.key.object: {"app.kubernetes.io/managed-by": "Helm"}, "neighbour": neighbours, "plain": {}}
    made = {
        name: await scene.cluster.create(CONFIG_MAP, namespace, _config_map(name, labels))
        for name, labels in foreign.items()
    }
    problem = await scene.fails(scene.request())
    assert (problem.code, "Helm" in problem.message) == ("conflict", True), problem
    taken = made[scene.key.object]["metadata"]
    await scene.cluster.delete(CONFIG_MAP, namespace, taken["name"], uid=taken["uid"])
    await scene.deploy(scene.request())
    await scene.remove()
    for name in ("neighbour", "plain"):
        left = await scene.cluster.get(CONFIG_MAP, namespace, name)
        assert left is not None
        assert left["metadata"]["resourceVersion"] == made[name]["metadata"]["resourceVersion"]


def _config_map(name: str, labels: dict[str, str]) -> Object:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}
