"""Spans, and the trace that goes along with what is done: cheap, and nothing but a variable when nobody records.

The OpenTelemetry SDK stays behind ``bus.telemetry``, which is imported only when a process is told where to send
traces. Without it a ``traceparent`` that came with a message is passed on all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal, Protocol

from schemas.problems import CalqueError
from schemas.traces import Trace, parse, trace_id_of

__all__ = ["carried", "current", "flush", "request_span", "set_up", "span", "tell", "untraced", "wanted"]

logger = logging.getLogger(__name__)

Kind = Literal["internal", "client", "server", "producer", "consumer"]

EXPORTER_VARIABLE = "OTEL_TRACES_EXPORTER"
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_current: ContextVar[Trace | None] = ContextVar("calque_trace", default=None)


class Open(Protocol):
    """A span that has not ended."""

    trace: Trace

    def end(self, *, problem: str | None = None, at_ns: int | None = None) -> None:
        """``problem`` is the code of what went wrong, ``at_ns`` Unix nanoseconds."""


class Mark:
    """What is to be said of a span when it ends: the code of a ``problem`` that was dealt with inside."""

    __slots__ = ("problem",)

    def __init__(self) -> None:
        self.problem: str | None = None


class Recorder(Protocol):
    """Who records spans."""

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
    ) -> Open:
        """Begin a span: below ``parent``, else the root of trace ``trace_id``."""

    def flush(self, seconds: float) -> None:
        """Send what has ended."""


_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """Have spans recorded, or no longer."""
    global _recorder
    _recorder = recorder


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces, in the words of OpenTelemetry."""
    exporter = environment.get(EXPORTER_VARIABLE, "").strip().lower()
    if exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return bool(exporter) or any(environment.get(name) for name in ENDPOINT_VARIABLES)


def set_up(*, service: str, version: str, site: str) -> None:
    """Record spans if the environment asks for it; says in the log what is missing when it can't be done."""
    if not wanted():
        return
    try:
        from bus.telemetry import recorder
    except ImportError as error:
        logger.warning(
            "traces are asked for (%s), but %s is not installed: install calque[telemetry]",
            next(name for name in (*ENDPOINT_VARIABLES, EXPORTER_VARIABLE) if os.environ.get(name)),
            error.name or "the SDK of OpenTelemetry",
        )
        return
    try:
        record_with(recorder(service=service, version=version, site=site))
    except ValueError as error:
        logger.warning("traces are asked for, but can't be sent: %s", error)


def flush(seconds: float = 1.0) -> None:
    """Send what has ended, before the process does."""
    if _recorder is not None:
        _recorder.flush(seconds)


def recording() -> bool:
    """Whether spans are recorded here."""
    return _recorder is not None


def current() -> str | None:
    """The ``traceparent`` for what is sent or stored now; that of the embedding program's span, if it has one."""
    trace = _current.get()
    return trace.traceparent() if trace is not None else _foreign()


def current_trace_id() -> str | None:
    """The trace that what is done now belongs to, if that is known."""
    trace = _current.get()
    return trace.trace_id if trace is not None else None


def _foreign() -> str | None:
    """Of a program that uses the SDK and OpenTelemetry: it is loaded then."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context: Any = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags.sampled)).traceparent()


@contextlib.contextmanager
def carried(trace: Trace | None) -> Iterator[None]:
    """What is sent and stored inside belongs to ``trace``; ``None`` leaves it as it is."""
    if trace is None:
        yield
        return
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """What is asked again and again, such as whether something has ended, is no part of a trace."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: Trace | str | None = None,
    root: str | None = None,
    span_id: str | None = None,
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator[Mark]:
    """A span around what is done inside, below ``parent`` (or its ``traceparent``), else below the current one.

    Without either it is the root of the trace that follows from the id ``root``, or, without that, of a new one. A
    problem that is raised marks it. When nobody records, what is inside still belongs to ``parent``.
    """
    above = (parse(parent) if isinstance(parent, str) else parent) or _current.get() or parse(_foreign())
    mark = Mark()
    if _recorder is None:
        with carried(above):
            yield mark
        return
    trace_id = trace_id_of(root) if root is not None else None
    begun = _recorder.start(
        name, kind=kind, trace_id=trace_id, parent=above, span_id=span_id, attributes=attributes or {}
    )
    token = _current.set(begun.trace)
    try:
        yield mark
    except BaseException as error:
        begun.end(problem=error.problem.code if isinstance(error, CalqueError) else type(error).__name__)
        raise
    else:
        begun.end(problem=mark.problem)
    finally:
        _current.reset(token)


@contextlib.contextmanager
def request_span(name: str, *, kind: Kind, attributes: Mapping[str, str | int]) -> Iterator[None]:
    """A span of a request, where there is a trace that it belongs to; else nothing."""
    if _recorder is None or _current.get() is None:
        yield
        return
    with span(name, kind=kind, attributes=attributes):
        yield


def tell(
    name: str,
    *,
    trace: Trace,
    parent: Trace | None,
    start: float,
    end: float | None = None,
    problem: str | None = None,
    attributes: Mapping[str, str | int] | None = None,
) -> None:
    """A span told when it is over, whoever began it: ``trace`` is itself; times in Unix seconds."""
    if _recorder is None:
        return
    begun = _recorder.start(
        name,
        kind="internal",
        trace_id=trace.trace_id,
        parent=parent,
        span_id=trace.span_id,
        attributes=attributes or {},
        at_ns=int(start * 1e9),
    )
    begun.end(problem=problem, at_ns=int((time.time() if end is None else end) * 1e9))
