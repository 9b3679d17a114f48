"""What the hub is told at its start, on top of what every process on the bus is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from bus.settings import BusSection, ProcessSettings, Section
from schemas.names import check_site

__all__ = ["BusSection", "HubSettings", "SnapshotSection"]


class SnapshotSection(Section):
    """When the hub writes a snapshot of its projections: after ``events``, or after ``seconds`` if there were any.

    ``keep`` of them stay.
    """

    events: int = Field(default=20_000, ge=1)
    seconds: float = Field(default=3600.0, gt=0)
    keep: int = Field(default=3, ge=1)


class HubSettings(ProcessSettings):
    """The hub keeps no files of its own: ``state_dir`` is the stack's to give, and stays empty."""

    PROCESS = "hub"

    state_dir: Path | None = None
    sites: list[str] = []
    snapshots: SnapshotSection = SnapshotSection()

    @field_validator("sites")
    @classmethod
    def _sites_are_names(cls, value: list[str]) -> list[str]:
        for site in value:
            if problem := check_site(site, field="sites"):
                raise ValueError(problem.message)
        if len(set(value)) != len(value):
            raise ValueError("a site is named twice")
        return value
