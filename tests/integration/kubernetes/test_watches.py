"""The inventory stays true whatever happens to its watches."""

from __future__ import annotations

import pytest

from tests.integration.kubernetes.conftest import Platform, request_for
from tests.integration.kubernetes.simulated.api import Fault, SimulatedCluster

LISTS = "/pods$"


def watches(simulated: SimulatedCluster) -> list[str]:
    return [
        seen.query["resourceVersion"]
        for seen in simulated.seen
        if seen.query.get("watch") == "true" and seen.path.endswith("/pods")
    ]


def lists(simulated: SimulatedCluster) -> int:
    asked = [seen.query for seen in simulated.seen if seen.path.endswith("/pods") and "watch" not in seen.query]
    return sum(query.get("labelSelector", "").endswith("object") for query in asked)


async def test_a_watch_that_breaks_is_taken_up_where_it_ended(simulated: SimulatedCluster, platform: Platform) -> None:
    await platform.deploy(request_for())
    before = lists(simulated)
    simulated.cut_watches()
    await platform.deploy(request_for(environment={"COLOUR": "red"}))
    assert platform.status().healthy
    assert lists(simulated) <= before + 1
    assert len(watches(simulated)) >= 2


async def test_a_version_that_is_gone_leads_to_a_new_list(simulated: SimulatedCluster, platform: Platform) -> None:
    await platform.deploy(request_for())
    before = lists(simulated)
    simulated.faults.append(Fault("GET", LISTS, status=410, message="too old resource version"))
    simulated.store.forget_history()
    simulated.cut_watches()
    await platform.deploy(request_for(environment={"COLOUR": "red"}))
    assert platform.status().healthy
    assert lists(simulated) > before


@pytest.mark.full
async def test_lists_of_many_pages_are_read_whole(simulated: SimulatedCluster, platform: Platform) -> None:
    for number in range(5):
        await platform.deploy(request_for(f"service-{number}"))
    second = Platform(simulated, platform.settings.state_dir.parent)
    await second.start()
    await second.inventory.synced()
    assert len(second.inventory.deployments()) == 5
    await second.stop()


@pytest.mark.full
async def test_a_slow_and_failing_server_only_delays(simulated: SimulatedCluster, platform: Platform) -> None:
    simulated.faults += [Fault("GET", LISTS, status=500, times=3), Fault("*", "", seconds=0.05, times=50)]
    simulated.cut_watches()
    await platform.deploy(request_for())
    await platform.until(lambda: platform.status().healthy)


@pytest.mark.full
async def test_what_others_remove_is_seen(simulated: SimulatedCluster, platform: Platform) -> None:
    await platform.deploy(request_for())
    found = platform.of("deployments")[0]
    simulated.store.drop("deployments", "calque-default", found["metadata"]["name"])
    await platform.until(lambda: not platform.inventory.deployments())
