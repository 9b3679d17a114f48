"""What every broker is told at its start, on top of what every process on the bus is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from bus.settings import BusSection, ProcessSettings, Section, SettingsError, load_settings
from schemas.names import check_name, check_site
from schemas.values import BrokerKind

__all__ = ["BrokerSettings", "BusSection", "Section", "SettingsError", "load_settings"]


class BrokerSettings(ProcessSettings):
    """A broker adds fields in a class of its own. ``state_dir`` is the broker's alone and is kept between runs."""

    site: str
    kind: BrokerKind
    name: str
    state_dir: Path

    @field_validator("site")
    @classmethod
    def _site_is_a_name(cls, value: str) -> str:
        if problem := check_site(value, field="site"):
            raise ValueError(problem.message)
        return value

    @field_validator("name")
    @classmethod
    def _name_is_a_name(cls, value: str) -> str:
        if problem := check_name(value, field="name"):
            raise ValueError(problem.message)
        return value
