"""The metrics that Calque's processes expose: names, labels, units. What a dashboard or an alert may rely on.

Names follow Prometheus' conventions: base units, ``_total`` for counters. A label has few values - kinds, outcomes,
names of sites, streams and brokers -, never an id. Who records them: ``bus.metrics``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["counter", "gauge", "histogram"]

EVERY = ("hub", "webhooks", "agent", "broker")
HUB = ("hub",)
AGENT = ("agent",)
BROKER = ("broker",)
WRITERS = ("hub", "agent")

QUICK_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """One metric, compared by identity. ``of`` are the kinds of processes that have it, ``buckets`` upper bounds."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    of: tuple[str, ...] = EVERY
    buckets: tuple[float, ...] = ()


METRICS: dict[str, Metric] = {}
"""Every metric by its name."""


def _metric(
    kind: MetricKind,
    name: str,
    help: str,
    *labels: str,
    of: tuple[str, ...] = EVERY,
    buckets: tuple[float, ...] = (),
) -> Metric:
    metric = Metric(name=name, kind=kind, help=help, labels=labels, of=of, buckets=buckets)
    if METRICS.setdefault(name, metric) is not metric:
        raise ValueError(f"metric {name} is there twice")
    return metric


BUILD_INFO = _metric(
    "gauge", "calque_build_info", "1; the labels say which process this is.", "process", "site", "version"
)

# --- the connection to NATS

BUS_CONNECTED = _metric("gauge", "calque_bus_connected", "Whether the connection to the NATS server stands.")
BUS_RECONNECTS = _metric("counter", "calque_bus_reconnects_total", "Times the connection was made again.")
BUS_MESSAGES = _metric("counter", "calque_bus_messages_total", "Messages over the connection.", "direction")
BUS_BYTES = _metric("counter", "calque_bus_bytes_total", "Payload bytes over the connection.", "direction")

# --- streams and consumers

CONSUMER_PENDING = _metric(
    "gauge",
    "calque_consumer_pending_events",
    "Messages that a durable consumer has not been given yet: its lag.",
    "stream",
    "consumer",
    of=WRITERS,
)
CONSUMER_UNACKNOWLEDGED = _metric(
    "gauge",
    "calque_consumer_unacknowledged_events",
    "Messages that a durable consumer was given and has not acknowledged.",
    "stream",
    "consumer",
    of=WRITERS,
)
CONSUMER_STALLED = _metric(
    "gauge",
    "calque_consumer_stalled_seconds",
    "How long a durable consumer with work to do has acknowledged nothing.",
    "stream",
    "consumer",
    of=WRITERS,
)
STREAM_MESSAGES = _metric("gauge", "calque_stream_messages", "Messages in a stream.", "stream", of=WRITERS)
STREAM_BYTES = _metric("gauge", "calque_stream_bytes", "Bytes in a stream.", "stream", of=WRITERS)
STREAM_LIMIT_BYTES = _metric(
    "gauge", "calque_stream_limit_bytes", "Bytes that a stream may hold; it refuses more.", "stream", of=WRITERS
)
DEAD_LETTERS_WAITING = _metric(
    "gauge", "calque_dead_letters_waiting", "Dead letters that wait for somebody to look at them.", of=WRITERS
)
SITE_LAG = _metric(
    "gauge",
    "calque_site_lag_events",
    "Events of a site that the hub has not projected yet; no value while the site does not report.",
    "site",
    of=HUB,
)
SITE_ONLINE = _metric("gauge", "calque_site_online", "Whether the site reports.", "site", of=HUB)
OUTBOX_UNSENT = _metric(
    "gauge",
    "calque_outbox_unsent_events",
    "Events in the site's outbox of which the hub has not confirmed that it has them.",
    of=AGENT,
)

# --- deciding and storing

APPENDS = _metric("counter", "calque_events_appended_total", "Events stored in the writer's own stream.", of=WRITERS)
CONFLICTS = _metric(
    "counter",
    "calque_append_conflicts_total",
    "Guarded appends that another writer had overtaken; each was decided again.",
    of=WRITERS,
)
APPEND_RETRIES = _metric(
    "counter", "calque_append_retries_total", "Appends tried again for a temporary fault.", "reason", of=WRITERS
)
COMMANDS = _metric("counter", "calque_commands_total", "Commands answered.", "command", "outcome", of=WRITERS)
COMMAND_SECONDS = _metric(
    "histogram",
    "calque_command_duration_seconds",
    "From the storing of a command to its answer.",
    "command",
    of=WRITERS,
    buckets=QUICK_SECONDS,
)
DELIVERIES = _metric(
    "counter",
    "calque_deliveries_total",
    "Deliveries of durable work handled.",
    "stream",
    "consumer",
    "outcome",
    of=WRITERS,
)
DEAD_LETTERS = _metric(
    "counter", "calque_dead_letters_total", "Messages put aside as dead letters.", "stream", "consumer", of=WRITERS
)
REFUSED = _metric(
    "counter",
    "calque_refused_events_total",
    "Events left out since their writer may not have written them.",
    "writer",
    "reason",
    of=HUB,
)

# --- operations

OPERATIONS = _metric(
    "histogram",
    "calque_operation_duration_seconds",
    "Operations that ended, from acceptance to the end. An operation is counted by whom it belongs to.",
    "kind",
    "outcome",
    of=WRITERS,
    buckets=LONG_SECONDS,
)
OPERATIONS_LIVE = _metric(
    "gauge", "calque_operations_live", "Operations that have something left to do.", "kind", of=WRITERS
)
CLEANUPS = _metric("gauge", "calque_cleanups_waiting", "Ended operations whose clean-up does not get done.", of=WRITERS)
STEPS = _metric(
    "histogram",
    "calque_step_duration_seconds",
    "Attempts at steps of operations.",
    "action",
    "outcome",
    of=AGENT,
    buckets=LONG_SECONDS,
)
RETRIES = _metric("counter", "calque_step_retries_total", "Attempts at steps after the first.", "action", of=AGENT)
WRITERS_WAIT = _metric(
    "histogram",
    "calque_writers_wait_seconds",
    "How long the writers of an app waited for the moments of an image.",
    of=AGENT,
    buckets=LONG_SECONDS,
)

# --- projections

PROJECTION_POSITION = _metric(
    "gauge", "calque_projection_position", "Sequence in EVENTS up to which the hub has projected.", of=HUB
)
PROJECTION_BEHIND = _metric(
    "gauge", "calque_projection_behind_events", "Events in EVENTS that the hub has not projected yet.", of=HUB
)
PROJECTION_STALE = _metric(
    "gauge", "calque_projection_stale_seconds", "How long the hub has been behind; 0 when it is not.", of=HUB
)
STOPPED = _metric(
    "gauge", "calque_stopped_aggregates", "Aggregates that hold an event which this version does not know.", of=HUB
)
SNAPSHOT_AGE = _metric(
    "gauge", "calque_snapshot_age_seconds", "Age of the newest sound snapshot; no value without one.", of=HUB
)
SNAPSHOT_FAILURES = _metric(
    "counter",
    "calque_snapshot_failures_total",
    "Snapshots that could not be written or read, by reason.",
    "reason",
    of=HUB,
)

# --- brokers

REQUESTS = _metric(
    "histogram",
    "calque_request_duration_seconds",
    "Requests and queries answered, by endpoint; the error is the code of the problem, empty for none.",
    "service",
    "endpoint",
    "error",
    buckets=QUICK_SECONDS,
)
BROKER_OPERATIONS = _metric(
    "histogram",
    "calque_broker_operation_duration_seconds",
    "Long operations of a broker that ended.",
    "operation",
    "outcome",
    of=BROKER,
    buckets=LONG_SECONDS,
)
BROKER_RUNNING = _metric(
    "gauge", "calque_broker_operations_running", "Long operations of a broker under way.", of=BROKER
)
COPIED_BYTES = _metric(
    "counter",
    "calque_copied_bytes_total",
    "Bytes that long operations of a broker reported as done.",
    "operation",
    of=BROKER,
)
