"""Traces: which trace and span something belongs to, and what is sent to a collector."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bus import tracing
from schemas.problems import CalqueError, temporary
from schemas.traces import Trace, operation_trace, parse, span_id_of, trace_id_of
from tests.otlp import Receiver, receiver

OPERATION = "0199f3c2-0000-7000-8000-00000000abcd"
CAME = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest_asyncio.fixture(loop_scope="session")
async def received(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """A collector, to which this process sends."""
    async with receiver() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        tracing.set_up(service="calque-test", version="1", site="north")
        try:
            yield found
        finally:
            tracing.record_with(None)


async def sent(found: Receiver) -> dict[str, tuple[str, str, str, bool]]:
    await asyncio.to_thread(tracing.flush, 10.0)
    return {span.name: (span.trace, span.id, span.parent, span.failed) for span in found.spans.values()}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "",
        "00-abc",
        CAME.replace("00-", "ff-", 1),
        CAME + "-more",
        CAME.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        CAME.replace("b7ad6b7169203331", "0" * 16),
        CAME.upper(),
        "00-" + "x" * 32 + "-b7ad6b7169203331-01",
    ],
)
def test_what_is_no_traceparent_is_passed_over(wrong: str | None) -> None:
    assert parse(wrong) is None


def test_a_traceparent_goes_round_and_a_later_version_is_read() -> None:
    trace = parse(CAME)
    assert trace is not None
    assert trace.traceparent() == CAME
    assert parse(CAME.replace("00-", "01-", 1) + "-later") == trace
    assert parse(CAME[:-1] + "0") == trace._replace(sampled=False)


def test_an_operation_of_the_hub_and_what_it_has_done_at_sites_share_a_trace() -> None:
    assert trace_id_of(OPERATION) == OPERATION.replace("-", "")
    assert trace_id_of(f"{OPERATION}/transfer/1") == trace_id_of(OPERATION)
    assert len(trace_id_of("named by hand")) == 32
    assert operation_trace(OPERATION, CAME).trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert operation_trace(OPERATION, CAME).span_id == operation_trace(OPERATION, None).span_id
    assert operation_trace(f"{OPERATION}/transfer/1", None).span_id != operation_trace(OPERATION, None).span_id


def test_without_a_recorder_what_came_is_carried_and_nothing_is_made_up() -> None:
    with tracing.span("a", root=OPERATION):
        assert tracing.current() is None
    with tracing.span("a", parent=CAME), tracing.request_span("b", kind="client", attributes={}):
        assert tracing.current() == CAME
        with tracing.untraced():
            assert tracing.current() is None
    assert tracing.current() is None


async def test_spans_reach_the_collector_as_a_tree_with_ids_that_follow(received: Receiver) -> None:
    with (
        tracing.span("root", kind="consumer", root=OPERATION),
        tracing.span("inside", span_id=span_id_of("step", "s")),
        tracing.request_span("request", kind="client", attributes={"rpc.method": "bind"}),
    ):
        came = tracing.current()
    with pytest.raises(CalqueError), tracing.span("failed", parent=came):
        raise CalqueError(temporary("unavailable", "nobody is there"))
    with tracing.span("dealt with", parent=came) as mark:
        mark.problem = "timeout"
    told = operation_trace(OPERATION, came)
    tracing.tell("told", trace=told, parent=parse(came), start=1.0, end=2.0)
    with tracing.request_span("beside", kind="client", attributes={}):
        assert tracing.current() is None
    found = await sent(received)
    trace = trace_id_of(OPERATION)
    assert {each[0] for each in found.values()} == {trace}
    assert found["root"][2] == ""
    assert found["inside"][1:3] == (span_id_of("step", "s"), found["root"][1])
    assert found["request"][2] == found["inside"][1]
    assert found["failed"][2] == found["dealt with"][2] == found["request"][1]
    assert [name for name, each in found.items() if each[3]] == ["failed", "dealt with"]
    assert found["told"][1:3] == (told.span_id, found["request"][1])
    [span] = [each for each in received.spans.values() if each.name == "told"]
    assert (span.start, span.end) == (10**9, 2 * 10**9)
    assert (span.service, span.site) == ("calque-test", "north")


async def test_the_sender_decides_what_is_recorded(received: Receiver) -> None:
    with tracing.span("not wanted", parent=CAME[:-1] + "0"):
        inside = parse(tracing.current())
    assert inside is not None
    assert not inside.sampled
    assert inside.trace_id in CAME
    assert await sent(received) == {}


def test_what_is_missing_is_said_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "bus.telemetry", None)
    with caplog.at_level(logging.WARNING):
        tracing.set_up(service="s", version="1", site="")
    assert "calque[telemetry]" in caplog.text
    assert not tracing.recording()


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
    ],
)
def test_traces_are_sent_when_the_environment_asks_for_it(environment: dict[str, str], asked: bool) -> None:
    assert tracing.wanted(environment) == asked


def test_the_program_of_a_user_passes_its_own_span_on() -> None:
    from opentelemetry import trace as api
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("theirs")
    with tracer.start_as_current_span("theirs") as span:
        context = span.get_span_context()
        assert tracing.current() == Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}").traceparent()
    assert not api.get_current_span().get_span_context().is_valid


def test_nothing_of_the_sdk_is_loaded_unless_it_is_asked_for() -> None:
    vendors = "('opentelemetry', 'prometheus')"
    program = f"import sys, bus.hosting, hub.client; print([m for m in sys.modules if m.startswith({vendors})])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
