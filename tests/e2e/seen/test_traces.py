"""One operation is one trace, through command line, hub, agents and brokers of both sites."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from schemas.traces import trace_id_of
from tests.e2e.stack import Stack, running_stack, until
from tests.otlp import Receiver, Span, receiver

pytestmark = pytest.mark.full


@dataclass(frozen=True)
class Traced:
    """A stack that sends its traces to ``received``, with an image of an app of north."""

    stack: Stack
    received: Receiver


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    async with receiver() as received:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
            environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
            environment.setattr("tests.e2e.stack.START_SECONDS", 180.0)  # every process loads the SDK as well
            async with running_stack(tmp_path_factory.mktemp("traces") / "home") as stack:
                await stack.must("template", "apply", "calque.yaml")
                await stack.must("deploy", "hackathon", "--site", "north", "--name", "ideas")
                await stack.must("save", "ideas", "--name", "first")
                yield Traced(stack, received)


async def ended(received: Receiver, trace: str, *names: str) -> list[Span]:
    """The trace, once spans of these names have come and the rest had time to follow."""

    async def there() -> bool:
        return set(names) <= {span.name for span in received.of(trace)}

    await until(there, seconds=30, what=f"the spans {', '.join(names)}")
    number = -1
    while number != len(received.of(trace)):
        number = len(received.of(trace))
        await asyncio.sleep(1.0)
    return received.of(trace)


def below(spans: list[Span], span: Span) -> list[str]:
    """The names from ``span`` up to the root."""
    by_id = {each.id: each for each in spans}
    path = [span.name]
    while span.parent:
        span = by_id[span.parent]
        path.append(span.name)
    return path


async def test_running_an_image_at_another_site_is_one_tree(traced: Traced) -> None:
    ran = (await traced.stack.must("run", "first", "--site", "south", "--name", "copy", "-o", "json")).json
    operations = (await traced.stack.must("operation", "list", "-o", "json")).json
    [whole] = [each for each in operations if each["kind"] == "run" and each["site"] == "hub"]
    assert ran
    trace = trace_id_of(whole["id"])
    spans = await ended(traced.received, trace, "operation run", "send image.run", "operation transfer")

    roots = [span for span in spans if not span.parent]
    assert [root.name for root in roots] == ["send image.run"], roots
    ids = {span.id for span in spans}
    assert not [span for span in spans if span.parent and span.parent not in ids], "spans hang in the air"
    services = {(span.service, span.site) for span in spans}
    assert {
        ("calque-cli", ""),
        ("calque-hub", "hub"),
        ("calque-agent", "north"),
        ("calque-agent", "south"),
        ("calque-crb-filesystem", "north"),
        ("calque-crb-filesystem", "south"),
        ("calque-dsb-postgres", "south"),
        ("calque-dsb-s3", "south"),
        ("calque-psb-process", "south"),
    } <= services
    restoring = next(
        span for span in spans if span.name == "operation provision" and span.service == "calque-dsb-postgres"
    )
    path = below(spans, restoring)
    assert path[1].endswith(" provision"), path
    assert path[2] == "request dsb provision", path
    assert path[3].startswith("step "), path
    assert path[4] == "operation run", path
    assert path[-3:] == ["operation run", "handle image.run", "send image.run"], path
    for span in spans:
        assert whole["id"] not in span.name
        assert span.start <= span.end
    assert not any(span.failed for span in spans if span.name.startswith("operation"))
    secrets = [value for span in spans for name, value in span.attributes.items() if "password" in f"{name}{value}"]
    assert not secrets


async def test_after_a_kill_the_spans_go_on_in_the_same_trace(traced: Traced) -> None:
    async with await traced.stack.client() as client:
        started = await client.save("ideas", name="second")
        assert started.operation is not None

        async def copying() -> bool:
            found = next(each for each in await client.operations() if each.id == started.operation)
            return any(step.state == "done" for step in found.steps)

        await until(copying, seconds=60, what="a save", every_seconds=0.01)
        traced.stack.kill("north-agent")
        await client.wait(started.operation, timeout=90)
    spans = await ended(traced.received, trace_id_of(started.operation), "operation save")
    [operation] = [span for span in spans if span.name == "operation save"]
    steps = [span for span in spans if span.name.startswith("step ")]
    assert len(steps) >= 5
    assert {step.parent for step in steps} == {operation.id}
    # the command came without a trace: it follows from the operation's id, and the hub's handling is the root
    assert [span.name for span in spans if not span.parent] == ["handle instance.save"]
