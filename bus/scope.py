"""What the work at hand belongs to, for its log lines: set where a command, a step or a request is taken up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

from bus.tracing import current_trace_id
from schemas.traces import trace_id_of


class Scope(NamedTuple):
    """``operation`` is its id; ``correlation`` the id of the command at the beginning of it all."""

    operation: str | None = None
    correlation: str | None = None


NOTHING = Scope()
_scope: ContextVar[Scope] = ContextVar("calque_scope", default=NOTHING)


@contextlib.contextmanager
def scope(*, operation: str | None = None, correlation: str | None = None) -> Iterator[None]:
    """What is logged inside belongs to these; what is not given stays as it was."""
    outer = _scope.get()
    token = _scope.set(Scope(operation or outer.operation, correlation or outer.correlation))
    try:
        yield
    finally:
        _scope.reset(token)


def fields() -> dict[str, str]:
    """``operation``, ``correlation`` and ``trace`` of the work at hand, as far as they are known."""
    operation, correlation = _scope.get()
    found: dict[str, str] = {}
    if operation:
        found["operation"] = operation
    if correlation:
        found["correlation"] = correlation
    trace = current_trace_id() or (trace_id_of(operation) if operation else None)
    if trace:
        found["trace"] = trace
    return found
