"""What the volume broker is told beyond what every broker is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from brokers.sdk.prices import PricedSettings


class VolumeSettings(PricedSettings):
    """``volumes_dir`` is absolute and the broker's alone: trees, their labels and prepared copies lie below it, on
    one file system. App services must be able to reach the trees by the same path. ``paranoid``: read all files for
    each copy, also those that look unchanged since the copy before."""

    volumes_dir: Path
    paranoid: bool = False

    @field_validator("volumes_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path: bindings hand it to app services")
        return value
