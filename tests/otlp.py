"""A receiver of traces: OTLP over HTTP (OpenTelemetry protocol 1.x), in the process of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


class Span(NamedTuple):
    """One span as it was sent. ``parent`` is empty for a root; times are Unix nanoseconds."""

    service: str
    site: str
    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, str]


@dataclass
class Receiver:
    """What has arrived so far at ``endpoint``."""

    endpoint: str = ""
    spans: dict[tuple[str, str], Span] = field(default_factory=dict)
    twice: int = 0

    def of(self, trace: str) -> list[Span]:
        """The spans of one trace, by their start."""
        return sorted((span for span in self.spans.values() if span.trace == trace), key=lambda span: span.start)

    async def take(self, request: web.Request) -> web.Response:
        """``POST /v1/traces``."""
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            about = {each.key: _text(each.value) for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for each in scope.spans:
                    span = Span(
                        about["service.name"],
                        about.get("calque.site", ""),
                        each.name,
                        each.trace_id.hex(),
                        each.span_id.hex(),
                        each.parent_span_id.hex(),
                        each.start_time_unix_nano,
                        each.end_time_unix_nano,
                        each.status.code == 2,
                        {one.key: _text(one.value) for one in each.attributes},
                    )
                    self.twice += (span.trace, span.id) in self.spans
                    self.spans[span.trace, span.id] = span
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def _text(value: AnyValue) -> str:
    return value.string_value if value.HasField("string_value") else str(value.int_value)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """One that listens on a free port."""
    found = Receiver()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        [address] = runner.addresses
        found.endpoint = f"http://127.0.0.1:{address[1]}"
        yield found
    finally:
        await runner.cleanup()
