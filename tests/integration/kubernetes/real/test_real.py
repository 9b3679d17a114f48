"""The broker on a real control plane, with no more rights than deploy/kubernetes/role.yaml gives it.

Pods are kwok's: they are scheduled, counted, evicted and collected by the real controllers, and nothing runs in them.
What needs something that runs (hooks, logs, probes) is tested on the simulated cluster. With CALQUE_KUBERNETES_RECORD
naming a file, the run is recorded there.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from brokers.kubernetes.names import ServiceKey
from bus.connection import Bus, BusSettings
from schemas.brokers import (
    DataServiceHealth,
    Deployed,
    DeployService,
    DescribeServices,
    Done,
    Health,
    Held,
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
    ServiceStatus,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from schemas.values import Artifact, HealthCheck, Hook, ServiceSpec
from tests.integration.broker_process import BrokerProcess
from tests.integration.kubernetes.real.build import BUILD_COMMAND, KUBERNETES, KWOK, programs
from tests.integration.kubernetes.real.cluster import NODE, RealCluster
from tests.servers import NatsServer

pytestmark = [
    pytest.mark.full,
    pytest.mark.xdist_group("kubernetes"),
    pytest.mark.skipif(
        programs() is None,
        reason=f"no control plane: name its programs and kwok by KUBEBUILDER_ASSETS, or {BUILD_COMMAND}",
    ),
]

ROOT = Path(__file__).parents[4]
NAMESPACE = "calque-default"
ROLLOUT_SECONDS = 4.0
TROUBLE_SECONDS = 1.0
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


class Scene:
    """The cluster, the broker, and one instance of the test's own."""

    def __init__(self, cluster: RealCluster, broker: BrokerProcess, record: list[str]) -> None:
        self.cluster = cluster
        self.broker = broker
        self.record = record
        self.instance = f"test-{new_id()}"

    def request(self, service: str = "web", **changes: Any) -> DeployService:
        spec = ServiceSpec(
            artifact=Artifact(type="image", image=changes.pop("image", "registry.test/app:1")),
            type="public",
            port=8080,
            health=HealthCheck(path="/health", start_period_seconds=1.0),
        )
        return msgspec.structs.replace(
            DeployService(
                id=new_id(),
                instance=self.instance,
                service=service,
                spec=spec,
                environment={"COLOUR": "red", "ODD name": "x"},
                secret_environment={"PASS": Secret(value="very-secret")},
                labels={"instance_name": "demo app"},
            ),
            **changes,
        )

    async def deploy(self, request: DeployService) -> Deployed:
        return await self.broker.run("deploy", request, Deployed)

    async def status(self, service: str = "web") -> ServiceStatus | None:
        asked = DescribeServices(instance=self.instance)
        found = await self.broker.ask("describe", asked, ServicesDescription)
        return next((each for each in found.services if each.service == service), None)

    async def remove(self, service: str = "web") -> None:
        await self.broker.run("remove", RemoveService(id=new_id(), instance=self.instance, service=service), Done)

    def key(self, service: str = "web") -> ServiceKey:
        return ServiceKey(self.instance, service)

    async def deployment(self, service: str = "web") -> dict[str, Any]:
        return await self.cluster.get(f"{DEPLOYMENTS}/{self.key(service).object}")

    async def pods(self, service: str = "web") -> list[dict[str, Any]]:
        return await self.cluster.items(f"{PODS}?labelSelector=calque/object={self.key(service).object}")

    async def until(self, holds: Callable[[], Awaitable[bool]], *, seconds: float = 20.0, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not await holds():
            assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
            await asyncio.sleep(0.1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def record() -> AsyncIterator[list[str]]:
    lines: list[str] = []
    yield lines
    if path := os.environ.get("CALQUE_KUBERNETES_RECORD"):
        Path(path).write_text("\n".join(lines) + "\n")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealCluster]:
    found = programs()
    assert found is not None
    made = RealCluster(found, tmp_path_factory.mktemp("kubernetes"))
    try:
        await made.start()
        await made.apply_file(ROOT / "deploy" / "kubernetes" / "role.yaml")
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(
    cluster: RealCluster, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BrokerProcess]:
    directory = tmp_path_factory.mktemp("broker")
    bus = await Bus.connect(BusSettings(servers=[nats_server.url], name="real"))
    token = await cluster.token(NAMESPACE, "calque-broker")
    made = BrokerProcess(
        "brokers.kubernetes",
        bus=bus,
        nats_url=nats_server.url,
        kind="psb",
        name="kubernetes",
        directory=directory,
        kubeconfig=str(cluster.kubeconfig(token, directory / "kubeconfig")),
        expose="node-port",
        public_host="node.test",
        rollout_seconds=ROLLOUT_SECONDS,
        trouble_seconds=TROUBLE_SECONDS,
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
async def scene(
    cluster: RealCluster, broker: BrokerProcess, record: list[str], request: pytest.FixtureRequest
) -> AsyncIterator[Scene]:
    made = Scene(cluster, broker, record)
    began = time.monotonic()
    yield made
    record.append(f"{request.node.name.removeprefix('test_').replace('_', ' ')}: {time.monotonic() - began:.1f} s")
    for name in ("web", "other"):
        await made.remove(name)
    left = await cluster.items(f"{PODS}?labelSelector=calque/instance={made.instance}")
    assert left == []


async def test_what_it_is(scene: Scene) -> None:
    info = await scene.broker.ask("info", InfoRequest(), PsbInfo)
    assert (info.engine, info.engine_version, info.artifacts) == ("kubernetes", KUBERNETES, ("image",))

    async def healthy() -> bool:  # it is not before it has listed what is there
        return (await scene.broker.ask("health", DataServiceHealth(), Health)).healthy

    await scene.until(healthy, what="it is healthy")
    scene.record.append(
        f"Kubernetes {KUBERNETES}, kwok {KWOK}, {platform.system()}, Python {platform.python_version()}"
    )


async def test_a_deployment_with_all_that_belongs_to_it(scene: Scene) -> None:
    deployed = await scene.deploy(scene.request())
    name = scene.key().object
    service = await scene.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/services/{name}")
    assert deployed.url == f"http://node.test:{service['spec']['ports'][0]['nodePort']}"
    assert (deployed.host, deployed.port) == (f"{name}.{NAMESPACE}.svc", 8080)
    status = await scene.status()
    assert status is not None
    assert (status.state, status.healthy, status.url) == ("running", True, deployed.url)
    deployment = await scene.deployment()
    managers = {(each["manager"], each["operation"]) for each in deployment["metadata"]["managedFields"]}
    assert ("calque", "Apply") in managers
    assert deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "calque"
    assert deployment["metadata"]["labels"]["app.kubernetes.io/instance"] == "demo-app"
    assert "very-secret" not in str(deployment) + str(await scene.pods())


async def test_the_same_again_changes_nothing_and_other_content_replaces_it(scene: Scene) -> None:
    first = await scene.deploy(scene.request())
    before, pods = await scene.deployment(), await scene.pods()
    assert await scene.deploy(scene.request()) == first
    after = await scene.deployment()
    assert after["spec"] == before["spec"]
    assert [pod["metadata"]["uid"] for pod in await scene.pods()] == [pod["metadata"]["uid"] for pod in pods]
    assert (await scene.deploy(scene.request(environment={"COLOUR": "blue"}))).url == first.url
    now = await scene.pods()
    assert len(now) == 1
    assert now[0]["metadata"]["uid"] != pods[0]["metadata"]["uid"]


async def test_our_fields_are_taken_back_and_those_of_others_are_left(scene: Scene) -> None:
    await scene.deploy(scene.request())
    path = f"{DEPLOYMENTS}/{scene.key().object}"
    await scene.cluster.merge(path, {"metadata": {"annotations": {"example.com/team": "blue"}}})
    await scene.cluster.merge(path, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 77}}}})
    await scene.deploy(scene.request())
    deployment = await scene.deployment()
    assert deployment["metadata"]["annotations"]["example.com/team"] == "blue"
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 5


@pytest.mark.parametrize("kind", ["Service", "ConfigMap", "Deployment"])
async def test_what_is_not_ours_is_refused_and_left_alone(scene: Scene, kind: str) -> None:
    name = scene.key().object
    group = "/apis/apps/v1" if kind == "Deployment" else "/api/v1"
    path = f"{group}/namespaces/{NAMESPACE}/{kind.lower()}s"
    selector, metadata = {"app": "foreign"}, {"name": name, "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    bodies: dict[str, dict[str, Any]] = {
        "ConfigMap": {"data": {"a": "b"}},
        "Service": {"spec": {"selector": selector, "ports": [{"port": 1}]}},
        "Deployment": {
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": selector},
                "template": {
                    "metadata": {"labels": selector},
                    "spec": {"containers": [{"name": "x", "image": "registry.test/x:1"}]},
                },
            }
        },
    }
    version = "apps/v1" if kind == "Deployment" else "v1"
    foreign = await scene.cluster.post(
        path, {"apiVersion": version, "kind": kind, "metadata": metadata, **bodies[kind]}
    )
    try:
        problem = await scene.broker.fails("deploy", scene.request())
        assert problem.code == "conflict"
        assert "Helm" in problem.message
        await scene.remove()
        left = await scene.cluster.get(f"{path}/{name}")
        assert left["metadata"]["uid"] == foreign["metadata"]["uid"]
        assert left["metadata"]["labels"] == metadata["labels"]
    finally:
        await scene.cluster.delete(f"{path}/{name}")


async def test_scale_to_nothing_and_back(scene: Scene) -> None:
    await scene.deploy(scene.request())
    for replicas, state in ((0, "stopped"), (2, "running"), (0, "stopped")):
        request = ScaleService(id=new_id(), instance=scene.instance, service="web", replicas=replicas)
        await scene.broker.run("scale", request, Done)
        status = await scene.status()
        assert status is not None
        assert (status.state, len(await scene.pods())) == (state, replicas)


async def test_a_pause_holds_until_it_is_resumed(scene: Scene) -> None:
    await scene.deploy(scene.request())
    before = await scene.pods()
    pause = PauseService(id=new_id(), instance=scene.instance, service="web", deadline_seconds=30)
    assert (await scene.broker.ask("pause", pause, Held)).held
    waiting = await scene.pods()
    assert [pod["spec"].get("nodeName") for pod in waiting if "deletionTimestamp" not in pod["metadata"]] in (
        [],
        [None],
    )
    assert {pod["metadata"]["uid"] for pod in waiting}.isdisjoint(pod["metadata"]["uid"] for pod in before)
    status = await scene.status()
    assert status is not None
    assert status.paused
    resume = ResumeService(id=new_id(), instance=scene.instance, service="web", pause=pause.id)
    resumed = await scene.broker.ask("resume", resume, Held)
    assert resumed.held, resumed.message

    async def healthy() -> bool:
        found = await scene.status()
        return found is not None and found.healthy

    await scene.until(healthy, what="it runs again")


async def test_a_pause_ends_at_its_deadline_although_the_broker_is_dead(scene: Scene) -> None:
    await scene.deploy(scene.request())
    pause = PauseService(id=new_id(), instance=scene.instance, service="web", deadline_seconds=6)
    began = time.monotonic()
    assert (await scene.broker.ask("pause", pause, Held)).held
    await scene.broker.kill()

    async def runs() -> bool:
        return any(pod["spec"].get("nodeName") for pod in await scene.pods())

    assert not await runs()
    await scene.until(runs, what="the cluster lets it go")
    took = time.monotonic() - began
    scene.record.append(f"pause of 6 s, broker killed: the cluster had scheduled it again after {took:.1f} s")
    assert 6.0 < took < 10.0
    await scene.broker.start()
    resume = ResumeService(id=new_id(), instance=scene.instance, service="web", pause=pause.id)
    assert not (await scene.broker.ask("resume", resume, Held)).held


async def test_the_cause_is_named_image(scene: Scene) -> None:
    problem = await scene.broker.fails("deploy", scene.request(image="registry.test/missing:1"))
    assert (problem.code, problem.temporary) == ("image_pull", False)
    assert "ImagePullBackOff" in problem.message
    status = await scene.status()
    assert status is not None
    assert (status.state, "image" in status.message) == ("failed", True)


async def test_the_cause_is_named_crash_loop(scene: Scene) -> None:
    problem = await scene.broker.fails("deploy", scene.request(image="registry.test/crashing:1"))
    assert problem.code == "crash_loop"
    assert "exit code 3" in problem.message


async def test_the_cause_is_named_quota(scene: Scene) -> None:
    quotas = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await scene.cluster.post(quotas, quota)
    try:

        async def counted() -> bool:
            return "hard" in (await scene.cluster.get(f"{quotas}/none")).get("status", {})

        await scene.until(counted, what="the quota is counted")
        problem = await scene.broker.fails("deploy", scene.request())
        assert (problem.code, problem.temporary) == ("quota", True)
        assert "exceeded quota" in problem.message
    finally:
        await scene.cluster.delete(f"{quotas}/none")


async def test_the_cause_is_named_no_node_and_the_broker_may_die_meanwhile(scene: Scene) -> None:
    node = f"/api/v1/nodes/{NODE}"
    await scene.cluster.merge(node, {"spec": {"unschedulable": True}})
    try:
        problem = await scene.broker.fails("deploy", scene.request())
        assert (problem.code, problem.temporary) == ("unschedulable", True)
        assert "unschedulable" in problem.message
        again = scene.request("other")
        assert (await scene.broker.begin("deploy", again)).state == "running"

        async def made() -> bool:
            return bool(await scene.pods("other"))

        await scene.until(made, what="its pod is made")
        await scene.broker.kill()
        await scene.broker.start()
    finally:
        await scene.cluster.merge(node, {"spec": {"unschedulable": None}})
    await scene.deploy(again)
    assert len(await scene.pods("other")) == 1


async def test_what_was_cancelled_leaves_nothing(scene: Scene) -> None:
    node = f"/api/v1/nodes/{NODE}"
    await scene.cluster.merge(node, {"spec": {"unschedulable": True}})
    try:
        request = scene.request()
        await scene.broker.begin("deploy", request)

        async def made() -> bool:
            return bool(await scene.pods())

        await scene.until(made, what="its pod is made")
        assert (await scene.broker.cancel(request.id)).state == "cancelled"
    finally:
        await scene.cluster.merge(node, {"spec": {"unschedulable": None}})
    for path in (DEPLOYMENTS, PODS, *(f"/api/v1/namespaces/{NAMESPACE}/{kind}" for kind in ("services", "secrets"))):
        assert await scene.cluster.items(f"{path}?labelSelector=calque/instance={scene.instance}") == []


async def test_a_command_before_the_service_is_there(scene: Scene) -> None:
    hook = Hook(exec=("migrate",), timeout_seconds=1.0)
    request = RunHook(
        id=new_id(), instance=scene.instance, service="web", phase="before_restore", hook=hook, task=scene.request()
    )
    problem = await scene.broker.fails("run_hook", request)
    assert (problem.code, problem.temporary) == ("hook_timeout", True)  # in kwok nothing ends by itself
    for path in (PODS, f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", f"/api/v1/namespaces/{NAMESPACE}/secrets"):
        assert await scene.cluster.items(f"{path}?labelSelector=calque/instance={scene.instance}") == []


async def test_kwok_has_no_logs_and_that_is_said(scene: Scene) -> None:
    await scene.deploy(scene.request())
    asked = LogsRequest(instance=scene.instance, service="web", lines=10)
    problem = await scene.broker.refuses("logs", asked, LogLines)
    assert (problem.code, problem.temporary) == ("no_log", True)
