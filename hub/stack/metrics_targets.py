"""Where the processes of a stack show their metrics: a port for each, and a file that Prometheus can follow.

``metrics-targets.json`` of the home is in the format of ``file_sd_configs``: a list of targets with labels.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from hub.stack.files import read_json, write_json
from hub.stack.names import HUB
from hub.stack.ports import LOOPBACK

Ports = Mapping[str, int]
"""By part."""


def write_targets(file: Path, ports: Ports, *, sites: Collection[str]) -> None:
    """Say where each part shows its metrics. ``site`` is ``hub`` for what runs at the hub."""
    targets = [
        {
            "targets": [f"{LOOPBACK}:{port}"],
            "labels": {"job": "calque", "part": part, "site": _site(part, sites)},
        }
        for part, port in sorted(ports.items())
    ]
    write_json(file, targets)


def read_targets(file: Path) -> dict[str, str]:
    """By part, the address of its metrics; empty when nothing is known of it."""
    try:
        targets = read_json(file) or []
        return {each["labels"]["part"]: f"http://{each['targets'][0]}/metrics" for each in targets}
    except (json.JSONDecodeError, OSError, TypeError, KeyError, IndexError):
        return {}


def _site(part: str, sites: Collection[str]) -> str:
    return next((site for site in sites if part.startswith(f"{site}-")), HUB)
