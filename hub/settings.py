"""What the hub is told at its start, on top of what every process on the bus is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from bus.settings import BusSection, ProcessSettings
from schemas.names import check_site

__all__ = ["BusSection", "HubSettings"]


class HubSettings(ProcessSettings):
    """The hub keeps no files of its own: ``state_dir`` is the stack's to give, and stays empty."""

    state_dir: Path | None = None
    sites: list[str] = []

    @field_validator("sites")
    @classmethod
    def _sites_are_names(cls, value: list[str]) -> list[str]:
        for site in value:
            if problem := check_site(site, field="sites"):
                raise ValueError(problem.message)
        if len(set(value)) != len(value):
            raise ValueError("a site is named twice")
        return value
