"""Traces: the ``traceparent`` of W3C Trace Context (level 1), and ids that follow from what they are of.

One operation is one trace. Its id is that of the ``traceparent`` which came with the command, else it follows from the
operation's id; the ids of the operation's span and of its steps' spans follow from theirs. So whoever carries an
operation on after a restart goes on in the same trace, and nothing about traces has to be remembered but what stands
in the envelope of the acceptance.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SAMPLED = 1


class Trace(NamedTuple):
    """A place in a trace: its id (32 hexadecimal digits), a span of it (16), and whether it is recorded."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def traceparent(self) -> str:
        """As it travels in an envelope."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def at(self, span_id: str) -> Trace:
        """Another span of the same trace."""
        return self._replace(span_id=span_id)


def parse(traceparent: str | None) -> Trace | None:
    """``None`` for what is none: a sender's mistake there must not matter to anything else."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    if not found[2].strip("0") or not found[3].strip("0"):
        return None
    return Trace(found[2], found[3], bool(int(found[4], 16) & _SAMPLED))


def trace_id_of(operation: str) -> str:
    """The trace of an operation that came without one. What the hub has a site do is of the hub's operation."""
    root = operation.partition("/")[0]
    return root.replace("-", "") if _UUID.fullmatch(root) else _digest("trace", root)[:32]


def span_id_of(kind: str, id: str) -> str:
    """The span of one thing with an id of its own: an ``operation``, a ``step``'s attempt, a ``command``."""
    return _digest(kind, id)[:16]


def operation_trace(id: str, accepted: str | None) -> Trace:
    """The span of an operation; ``accepted`` is the ``traceparent`` in the envelope of its acceptance."""
    came = parse(accepted)
    span = span_id_of("operation", id)
    return came.at(span) if came is not None else Trace(trace_id_of(id), span)


def _digest(kind: str, id: str) -> str:
    return hashlib.sha256(f"{kind}:{id}".encode()).hexdigest()
