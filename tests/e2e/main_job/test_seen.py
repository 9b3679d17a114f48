"""What the processes of a stack show of themselves, after an app was deployed, saved and run elsewhere."""

from __future__ import annotations

import asyncio
import json
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.metrics import METRICS
from tests.e2e.main_job.conftest import Told
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

Shown = dict[str, list[tuple[dict[str, str], float]]]


async def shown(address: str) -> Shown:
    """The samples by name."""

    def read() -> str:
        with urlopen(address, timeout=20) as answer:
            return str(answer.read().decode())

    found: Shown = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(read)):
        for each in family.samples:
            found.setdefault(each.name, []).append((each.labels, each.value))
    return found


def total(found: Shown, name: str, **labels: str) -> float:
    return sum(value for said, value in found.get(name, []) if labels.items() <= said.items())


async def test_every_process_shows_what_it_did(stack: Stack, told: Told) -> None:
    status = (await stack.must("status", "-o", "json")).json["stack"]
    addresses: dict[str, str] = status["metrics"]
    targets = json.loads((stack.home / "metrics-targets.json").read_text())
    assert {each["labels"]["part"] for each in targets} == set(addresses)
    assert {each["labels"]["site"] for each in targets} == {"hub", "north", "south"}
    pages = dict(zip(addresses, await asyncio.gather(*map(shown, addresses.values())), strict=True))
    ours = {part for part in status["parts"] if not part.endswith(("nats", "postgres", "s3")) or "sb-" in part}
    assert ours == set(addresses)
    for part, page in pages.items():
        assert total(page, "calque_build_info") == 1, part
        assert total(page, "calque_bus_connected") == 1, part
        assert total(page, "process_resident_memory_bytes") > 0, part

    hub, north, south = pages["hub"], pages["north-agent"], pages["south-agent"]
    assert total(hub, "calque_site_online") == 2
    assert {labels["site"] for labels, _ in hub["calque_site_lag_events"]} == {"north", "south"}
    assert total(hub, "calque_commands_total", command="instance.deploy") >= 1
    assert total(hub, "calque_operation_duration_seconds_count", outcome="succeeded") >= 1
    assert total(hub, "calque_projection_position") > 0
    assert total(hub, "calque_stopped_aggregates") == 0
    assert ("EVENTS", "sagas") in {
        (labels["stream"], labels["consumer"]) for labels, _ in hub["calque_consumer_pending_events"]
    }
    assert (
        total(hub, "calque_stream_limit_bytes", stream="EVENTS")
        > total(hub, "calque_stream_bytes", stream="EVENTS")
        > 0
    )

    assert total(north, "calque_operation_duration_seconds_count", kind="save", outcome="succeeded") >= 1
    assert total(north, "calque_writers_wait_seconds_count") >= 1
    assert total(north, "calque_step_duration_seconds_count", outcome="succeeded") >= 5
    assert total(north, "calque_events_appended_total") > 10
    assert total(south, "calque_commands_total", outcome="accepted") >= 1
    postgres = pages["north-dsb-postgres"]
    assert total(postgres, "calque_broker_operation_duration_seconds_count", operation="copy", outcome="succeeded") >= 1
    assert total(postgres, "calque_copied_bytes_total", operation="copy") > 0
    assert total(postgres, "calque_request_duration_seconds_count", endpoint="provision") >= 1

    known = {name for metric in METRICS for name in (metric, f"{metric}_bucket", f"{metric}_count", f"{metric}_sum")}
    for part, page in pages.items():
        strange = {name for name in page if not name.startswith(("process_", "python_"))} - known
        assert not strange, f"{part} shows {strange}, which the page of the metrics does not name"
        for name, samples in page.items():
            assert len(samples) < 400, f"{name} of {part} has {len(samples)} series"


async def test_sites_are_listed_with_how_far_the_hub_is_behind(stack: Stack, told: Told) -> None:
    sites = (await stack.must("site", "list", "-o", "json")).json
    assert {site["name"]: site["lag"] for site in sites} == {"north": 0, "south": 0}
    described = (await stack.must("site", "describe", "north")).stdout
    assert "0 events" in described
    assert "outbox" in described
