"""Deployments: what is made, why they hang, what is taken away again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from brokers.kubernetes.names import ServiceKey
from brokers.kubernetes.settings import KubernetesSettings
from schemas.brokers import RemoveService, ScaleService
from schemas.ids import new_id
from schemas.problems import Actor, CalqueError
from schemas.secrets import Secret
from schemas.values import Artifact
from tests.integration.kubernetes.conftest import INSTANCE, Platform, request_for
from tests.integration.kubernetes.services import APP_IMAGE
from tests.integration.kubernetes.simulated.api import Fault, SimulatedCluster

NAME = ServiceKey(INSTANCE, "web").object
SPACE = "calque-default"


def image(name: str) -> Artifact:
    return Artifact(type="image", image=name, command=("python", "app.py"))


async def test_secrets_stand_in_the_secret_alone(platform: Platform) -> None:
    secret = "a-secret-of-the-test"
    await platform.deploy(request_for(secret_environment={"PASS": Secret(value=secret)}, environment={"COLOUR": "red"}))
    encoded = platform.of("secrets")[0]["data"]["PASS"]
    for plural in ("deployments", "pods", "services", "configmaps", "events"):
        text = json.dumps(platform.of(plural))
        assert secret not in text
        assert encoded not in text
    assert platform.of("configmaps")[0]["data"] == {"COLOUR": "red"}


@pytest.mark.full
async def test_the_digest_of_the_content_tells_nothing_of_a_short_secret(platform: Platform) -> None:
    contents = set()
    for service in ("web", "other"):
        await platform.deploy(request_for(service, secret_environment={"PIN": Secret(value="1234")}))
        found = platform.inventory.find(ServiceKey(INSTANCE, service))
        assert found is not None
        contents.add(found[1]["metadata"]["annotations"]["calque/content"])
    assert len(contents) == 2


@pytest.mark.parametrize(
    ("artifact", "code", "said"),
    [
        (image("registry.test/nobody-made-it:1"), "image_pull", "ImagePullBackOff"),
        (image("registry.test/Upper:1"), "image_pull", "InvalidImageName"),
        (
            Artifact(type="image", image=APP_IMAGE, command=("python", "-c", "print('why'); exit(3)")),
            "crash_loop",
            "why",
        ),
    ],
)
async def test_a_rollout_that_hangs_names_its_cause(
    platform: Platform, artifact: Artifact, code: str, said: str
) -> None:
    problem = await platform.fails(request_for(artifact=artifact))
    assert (problem.code, problem.actor, problem.field) == (code, Actor.BROKER, "web")
    assert said in problem.message
    await platform.until(lambda: platform.status().state == "failed")
    assert platform.status().message in problem.message
    await platform.until(lambda: not platform.of("pods"))


@pytest.mark.full
async def test_a_probe_that_fails_is_named_with_what_it_got(platform: Platform) -> None:
    problem = await platform.fails(request_for(environment={"CONFORM_HEALTH": "never", "CONFORM_SAY": "I am ill"}))
    assert problem.code == "unhealthy"
    assert "statuscode: 500" in problem.message
    assert "I am ill" in problem.message


async def test_what_the_cluster_lacks_is_temporary_and_progress_says_it(
    simulated: SimulatedCluster, platform: Platform
) -> None:
    simulated.controllers.full = True
    deploying = asyncio.create_task(platform.deploy(request_for()))
    await platform.until(lambda: any("Insufficient cpu" in words for words in platform.told))
    simulated.controllers.full = False
    simulated.controllers.look()
    assert (await deploying).url


@pytest.mark.full
async def test_a_quota_is_named(simulated: SimulatedCluster, platform: Platform) -> None:
    simulated.controllers.quota = 0
    short = Platform(simulated, platform.settings.state_dir.parent, rollout_seconds=0.5)
    await short.start()
    problem = await short.fails(request_for())
    await short.stop()
    assert (problem.code, problem.actor) == ("quota", Actor.ENVIRONMENT)
    assert "exceeded quota" in problem.message


async def test_what_is_not_ours_is_refused_and_left_alone(simulated: SimulatedCluster, platform: Platform) -> None:
    labels = {"app.kubernetes.io/managed-by": "Helm", "calque/instance": INSTANCE, "calque/service": "web"}
    foreign = simulated.store.add("services", SPACE, {"metadata": {"name": NAME, "labels": labels}, "spec": {}})
    problem = await platform.fails(request_for())
    assert (problem.code, "Helm" in problem.message) == ("conflict", True)
    await platform.platform.remove(RemoveService(id=new_id(), instance=INSTANCE, service="web"))
    assert platform.of("services") == [foreign]
    assert platform.of("secrets") + platform.of("deployments") == []


async def test_our_fields_are_taken_back_and_those_of_others_stay(
    simulated: SimulatedCluster, platform: Platform
) -> None:
    await platform.deploy(request_for())
    service = simulated.store.get("services", SPACE, NAME)
    assert service is not None
    service["metadata"]["labels"]["team"] = "blue"
    service["spec"]["selector"] = {"app": "elsewhere"}
    simulated.store.change("services", SPACE, service)
    await platform.deploy(request_for())
    after = simulated.store.get("services", SPACE, NAME)
    assert after is not None
    assert after["metadata"]["labels"]["team"] == "blue"
    assert after["spec"]["selector"] == {"calque/object": NAME}


@pytest.mark.full
async def test_a_variable_that_is_left_out_is_gone_from_the_config_map(platform: Platform) -> None:
    await platform.deploy(request_for(environment={"OLD": "1", "KEPT": "2"}))
    await platform.deploy(request_for(environment={"KEPT": "2"}))
    assert platform.of("configmaps")[0]["data"] == {"KEPT": "2"}


@pytest.mark.full
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_server_is_asked_again(simulated: SimulatedCluster, platform: Platform, status: int) -> None:
    simulated.faults += [
        Fault("PATCH", "/deployments/", status=status, times=2, retry_after=0),
        Fault("GET", "/secrets/", status=status, times=2, retry_after=0),
    ]
    assert (await platform.deploy(request_for())).url


@pytest.mark.full
async def test_a_server_that_stays_away_is_a_temporary_problem(simulated: SimulatedCluster, platform: Platform) -> None:
    await platform.deploy(request_for())
    port = int(simulated.url.rpartition(":")[2])
    await simulated.stop_serving()
    await platform.until(lambda: bool(platform.inventory.trouble))
    await simulated.start(port=port)
    await platform.until(lambda: not platform.inventory.trouble and platform.status().healthy, seconds=20)


async def test_a_right_that_is_missing_is_named(simulated: SimulatedCluster, platform: Platform) -> None:
    said = 'services is forbidden: User "x" cannot patch resource "services"'
    simulated.faults.append(Fault("PATCH", "/services/", status=403, message=said))
    with pytest.raises(Exception, match="cannot patch resource"):
        await platform.deploy(request_for())


async def test_a_restarted_broker_goes_on_with_what_was_begun_and_a_cancel_removes_it(
    simulated: SimulatedCluster, platform: Platform
) -> None:
    simulated.controllers.full = True
    request = request_for()
    first = asyncio.create_task(platform.deploy(request))
    await platform.until(lambda: bool(platform.of("pods")))
    first.cancel()
    await asyncio.wait({first})
    second = Platform(simulated, platform.settings.state_dir.parent)
    await second.start()
    again = asyncio.create_task(second.deploy(request, cancelling=lambda: True))
    await second.until(lambda: bool(second.told))
    again.cancel()
    await asyncio.wait({again})
    await second.stop()
    for plural in ("deployments", "pods", "services", "secrets", "configmaps"):
        assert platform.of(plural) == [], plural


@pytest.mark.full
async def test_a_cancelled_replacement_does_not_remove_what_was_there(platform: Platform) -> None:
    await platform.deploy(request_for())
    change = asyncio.create_task(
        platform.deploy(request_for(environment={"CONFORM_HEALTH": "never"}), cancelling=lambda: True)
    )
    await platform.until(lambda: bool(platform.told))
    change.cancel()
    await asyncio.wait({change})
    await platform.until(lambda: platform.status().state == "failed")
    assert (await platform.deploy(request_for())).url


@pytest.mark.full
async def test_more_than_one_pod(platform: Platform) -> None:
    await platform.deploy(request_for())
    three = ScaleService(id=new_id(), instance=INSTANCE, service="web", replicas=3)
    await platform.platform.scale(three, tell=platform.told.append)
    assert len(platform.of("pods")) == 3
    await platform.deploy(request_for(environment={"COLOUR": "red"}))
    assert len(platform.of("pods")) == 3


async def test_a_service_without_a_port_needs_no_address(platform: Platform) -> None:
    worker = Artifact(type="image", image=APP_IMAGE, command=("python", "-c", "import signal; signal.pause()"))
    deployed = await platform.deploy(request_for(artifact=worker, port=None, type="worker", health=None))
    assert (deployed.url, deployed.host) == (None, None)
    assert platform.of("services") == []
    assert platform.status().healthy


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"artifact": Artifact(directory="/app", command=("x",))}, "artifact"),
        ({"restart": "never"}, "restart"),
        ({"environment": {"A=B": "x"}}, "environment.A=B"),
        ({"instance": "no/name"}, "instance"),
    ],
)
async def test_what_can_not_run_here_is_refused_by_its_field(
    platform: Platform, changes: dict[str, Any], field: str
) -> None:
    problem = await platform.fails(request_for(**changes))
    assert (problem.code, problem.field) == ("invalid", field)
    assert platform.of("deployments") == []


@pytest.mark.full
async def test_a_namespace_that_is_missing(simulated: SimulatedCluster, platform: Platform) -> None:
    simulated.namespaces.clear()
    with pytest.raises(Exception, match=r'namespaces "calque-default" not found'):
        await platform.deploy(request_for())
    making = Platform(simulated, platform.settings.state_dir.parent, create_namespaces=True)
    await making.start()
    assert (await making.deploy(request_for())).url
    await making.stop()


async def test_an_ingress_has_a_name_of_its_own(simulated: SimulatedCluster, platform: Platform) -> None:
    through = Platform(
        simulated, platform.settings.state_dir.parent, expose="ingress", public_host="apps.test", public_scheme="https"
    )
    await through.start()
    deployed = await through.deploy(request_for())
    host = through.of("ingresses")[0]["spec"]["rules"][0]["host"]
    assert deployed.url == f"https://{host}"
    assert host.startswith("web-demo-")
    await through.platform.remove(RemoveService(id=new_id(), instance=INSTANCE, service="web"))
    assert through.of("ingresses") == []
    await through.stop()


def test_settings_that_do_not_fit_together_are_refused(platform: Platform) -> None:
    with pytest.raises(ValueError, match="public_host"):
        KubernetesSettings.model_validate({**platform.settings.model_dump(), "expose": "ingress", "public_host": None})


async def test_a_foreign_error_is_told_as_ours(platform: Platform) -> None:
    with pytest.raises(CalqueError, match="replicas"):
        await platform.platform.scale(
            ScaleService(id=new_id(), instance=INSTANCE, service="web", replicas=-1), tell=platform.told.append
        )
