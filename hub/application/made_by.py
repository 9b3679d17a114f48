"""What makes a state out of events: a digest over the code that does it.

A snapshot holds what the code of its time made of the events. Code that folds otherwise, or knows more events, would
make something else of them, so it starts from the events again. No number that somebody has to remember to raise.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import import_module
from pathlib import Path

from schemas.brokers import SERVICE_VERSION

PACKAGES = ("schemas", "bus", "hub.domain", "hub.projections")


@functools.cache
def make_of_state() -> str:
    """``<version>-<digest>`` of this program's way from events to state."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for root in map(Path, import_module(package).__path__):
            for path in sorted(root.rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
                digest.update(path.read_bytes())
    return f"{SERVICE_VERSION}-{digest.hexdigest()[:16]}"
