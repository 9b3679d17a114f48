"""``docs/metrics.md``: every metric with its labels, from the program."""

from __future__ import annotations

from schemas.metrics import METRICS, Metric

_HEAD = """\
# Metrics

Made from the program by `python -m hub.cli.pages` (`make generate`); `make check` holds it to that.

Hub, webhooks process, agents and brokers each show their metrics at `/metrics`, in the text format of Prometheus or in
OpenMetrics, when they are told an address to listen on: the setting `metrics_listen` or the variable
`CALQUE_METRICS_LISTEN`, `<host>:<port>`. Port 0 takes one that is free, and the log says which. There is no login:
listen on the loopback address, or where only Prometheus gets to. No metric holds a secret, and no label an id.

The processes of `calque up` listen on ports of their own on the loopback address. `calque status` shows them, and
`metrics-targets.json` in the home lists them as Prometheus takes it, with the labels `part` and `site`:

```yaml
scrape_configs:
  - job_name: calque
    file_sd_configs: [{files: [/path/to/home/metrics-targets.json]}]
```

[`deploy/prometheus/alerts.yaml`](../deploy/prometheus/alerts.yaml) has alerts. Every process also shows `process_*`
(memory, CPU time, open files) and `python_info`.

Counters begin at 0 with each process. With several hubs, gauges about streams and sites are shown by each of them: take
`max`. An operation is counted by the process that recorded its end: a site's by its agent, the hub's by a hub.
"""
_TITLES = {
    ("hub", "webhooks", "agent", "broker"): "Every process",
    ("hub", "agent"): "Hub and agents",
    ("hub",): "Hub",
    ("agent",): "Agents",
    ("broker",): "Brokers",
}


def metrics_page() -> str:
    """The whole page."""
    return _HEAD + "".join(
        _section(title, [metric for metric in METRICS.values() if metric.of == of]) for of, title in _TITLES.items()
    )


def _section(title: str, metrics: list[Metric]) -> str:
    rows = "".join(
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |\n"
        for metric in sorted(metrics, key=lambda metric: metric.name)
    )
    return f"\n## {title}\n\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n{rows}"
