"""What a process counts, and how it is shown to Prometheus."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bus.exposition import exposed, page
from bus.metrics import Measures, Sample, sample
from schemas import metrics
from schemas.metrics import METRICS
from schemas.problems import CalqueError, temporary

ROOT = Path(__file__).parents[3]
OF_PROMETHEUS = {"up"}


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (each.name, tuple(sorted(each.labels.values()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_names_follow_the_conventions() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"calque_[a-z_]+", name), name
        assert (metric.kind == "counter") == name.endswith("_total"), name
        assert (metric.kind == "histogram") == bool(metric.buckets), name
        assert metric.kind != "histogram" or name.endswith("_seconds"), name
        assert list(metric.buckets) == sorted(set(metric.buckets)), name
        assert name + "_total" not in METRICS, f"OpenMetrics takes both for one: {name}"
        assert not {"id", "operation_id", "command_id", "instance"} & set(metric.labels), name


async def test_counters_histograms_and_collected_values_are_shown_as_prometheus_reads_them() -> None:
    measures = Measures()
    measures.count(metrics.DEAD_LETTERS, "JOBS", "jobs")
    measures.count(metrics.DEAD_LETTERS, "JOBS", "jobs", by=2)
    for took in (0.05, 4.0, 1e6):
        measures.observe(metrics.OPERATIONS, took, "run", "succeeded")

    async def collector() -> list[Sample]:
        return [sample(metrics.SITE_LAG, 7, 'no"rth')]

    with measures.collecting(collector):
        shown, content_type = await page(measures)
    assert content_type.startswith("text/plain; version=0.0.4")
    found = values(shown.decode())
    assert found["calque_dead_letters_total", ("JOBS", "jobs")] == 3
    assert found["calque_site_lag_events", ('no"rth',)] == 7
    bounds = metrics.OPERATIONS.buckets
    within = [
        found["calque_operation_duration_seconds_bucket", tuple(sorted(("run", "succeeded", str(each))))]
        for each in bounds
    ]
    assert within == [sum(took <= bound for took in (0.05, 4.0, 1e6)) for bound in bounds]
    assert found["calque_operation_duration_seconds_count", ("run", "succeeded")] == 3
    again, _ = await page(measures)
    assert "calque_site_lag_events" not in again.decode()


async def test_a_collector_that_fails_or_hangs_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.metrics.COLLECT_SECONDS", 0.05)
    measures = Measures()
    measures.count(metrics.CONFLICTS)

    async def failing() -> list[Sample]:
        raise CalqueError(temporary("unavailable", "nobody is there"))

    async def hanging() -> list[Sample]:
        await asyncio.Event().wait()
        return []

    with measures.collecting(failing), measures.collecting(hanging):
        shown, _ = await page(measures)
    assert values(shown.decode())["calque_append_conflicts_total", ()] == 1


async def test_the_listener_answers_prometheus_and_refuses_the_rest() -> None:
    measures = Measures()
    measures.count(metrics.CONFLICTS)
    async with exposed("127.0.0.1:0", measures=measures) as listening:
        port = await listening

        def read() -> str:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())

        assert values(await asyncio.to_thread(read))["calque_append_conflicts_total", ()] == 1
        for request, status in (
            (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
            (b"\x00\xff garbage\r\n\r\n", b"405"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            assert (await reader.readline()).split()[1] == status
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        assert values(await asyncio.to_thread(read))["calque_append_conflicts_total", ()] == 1


async def test_a_taken_port_is_tried_again_and_keeps_nobody_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.exposition.AGAIN_SECONDS", 0.02)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with exposed(f"127.0.0.1:{port}", measures=Measures()) as listening:
        assert not listening.done()
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(60):
            assert await listening == port


def test_every_metric_that_an_alert_names_exists_with_its_labels() -> None:
    rules = [
        rule
        for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        named = re.findall(r"\b(calque_\w+|up)\b", rule["expr"])
        assert named, rule["alert"]
        labels: set[str] = {"instance", "job", "part", "site", "le"}
        for name in named:
            plain = re.sub(r"_(bucket|count|sum)$", "", name) if name not in METRICS else name
            assert plain in METRICS or name in OF_PROMETHEUS, f"{rule['alert']} names {name}"
            labels |= set(METRICS[plain].labels) if plain in METRICS else set()
        used = {label for group in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in re.split(r",\s*", group)}
        used |= set(re.findall(r"[{,]\s*(\w+)\s*!?=", rule["expr"]))
        used |= set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert used <= labels, f"{rule['alert']} uses {used - labels}"
        assert rule["annotations"]["description"]
