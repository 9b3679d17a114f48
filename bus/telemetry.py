"""Spans recorded with the OpenTelemetry SDK and sent by OTLP over HTTP: the only module that imports it.

Where to, how often and which share of traces is the SDK's to read from the environment (``OTEL_...``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from typing import NamedTuple

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from bus.tracing import EXPORTER_VARIABLE, Kind, Recorder
from schemas.traces import Trace

KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class _Ids(NamedTuple):
    trace_id: str | None
    span_id: str | None


RANDOM = _Ids(None, None)
_given: ContextVar[_Ids] = ContextVar("calque_span_ids", default=RANDOM)


class GivenIds(RandomIdGenerator):
    """Ids that follow from what a span is of, where they are given; else random ones."""

    def generate_span_id(self) -> int:
        given = _given.get().span_id
        return super().generate_span_id() if given is None else int(given, 16)

    def generate_trace_id(self) -> int:
        given = _given.get().trace_id
        return super().generate_trace_id() if given is None else int(given, 16)


class OpenSpan:
    """A span that has not ended."""

    def __init__(self, span: api.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace = Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags.sampled))

    def end(self, *, problem: str | None = None, at_ns: int | None = None) -> None:
        """End it."""
        if problem is not None:
            self._span.set_attribute("error.type", problem)
            self._span.set_status(Status(StatusCode.ERROR, problem))
        self._span.end(at_ns)


class SdkRecorder:
    """Records with a provider of its own: that of a program which embeds this one stays as it is."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("calque")

    def start(
        self,
        name: str,
        *,
        kind: Kind,
        trace_id: str | None,
        parent: Trace | None,
        span_id: str | None,
        attributes: Mapping[str, str | int],
        at_ns: int | None = None,
    ) -> OpenSpan:
        """Begin a span."""
        context = api.set_span_in_context(NonRecordingSpan(_context(parent) if parent else api.INVALID_SPAN_CONTEXT))
        token = _given.set(_Ids(trace_id, span_id))
        try:
            span = self._tracer.start_span(
                name, context=context, kind=KINDS[kind], attributes=dict(attributes), start_time=at_ns
            )
        finally:
            _given.reset(token)
        return OpenSpan(span)

    def flush(self, seconds: float) -> None:
        """Send what has ended, for at most ``seconds``, and record no more."""
        self._provider.force_flush(int(seconds * 1000))


def recorder(*, service: str, version: str, site: str) -> Recorder:
    """As the environment says. Raises ``ValueError`` for an exporter that is not known."""
    chosen = os.environ.get(EXPORTER_VARIABLE, "otlp").strip().lower() or "otlp"
    exporter: SpanExporter
    if chosen == "otlp":
        exporter = OTLPSpanExporter()
    elif chosen == "console":
        exporter = ConsoleSpanExporter()
    else:
        raise ValueError(f"{EXPORTER_VARIABLE} is {chosen!r}; use otlp, console or none")
    about = {"service.name": service, "service.namespace": "calque", "service.version": version, "calque.site": site}
    provider = TracerProvider(resource=Resource.create(about), id_generator=GivenIds(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return SdkRecorder(provider)


def _context(trace: Trace) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)
