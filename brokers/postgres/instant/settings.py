"""What the operator says about kept databases."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from brokers.sdk.settings import Section

GIB = 1 << 30


class InstantSection(Section):
    """``policy``: ``reflink`` keeps a database of each restored copy where the server's filesystem shares blocks, so
    that a kept database and its clones take next to no time and room; ``always`` also where they are copied byte by
    byte; ``off`` never. ``data_dir`` is the server's data directory where it lies on this machine and the server does
    not tell it; it is looked at, never trusted: the filesystem is probed.

    At most ``databases`` are kept, of at most ``bytes`` together (as the server counts, shared or not), and none that
    was not used for ``hours``: those go first that were not used for the longest time."""

    policy: Literal["off", "reflink", "always"] = "reflink"
    data_dir: Path | None = None
    databases: int = Field(default=8, ge=1)
    bytes: int = Field(default=64 * GIB, ge=0)
    hours: float = Field(default=168.0, gt=0)
