"""What the hub is told at its start: the JSON file that the environment variable ``CALQUE_CONFIG`` names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.names import check_site

CONFIG_VARIABLE = "CALQUE_CONFIG"


class SettingsError(Exception):
    """The settings can't be used; the message is one line that names the file, the field and the cause."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BusSection(_Section):
    """How to reach the hub's NATS server."""

    servers: list[str] = Field(min_length=1)
    nkey_seed_file: str | None = None
    name: str = "hub"


class HubSettings(_Section):
    """The hub's settings. It keeps no files of its own: ``state_dir`` is the stack's to give, and stays empty."""

    bus: BusSection
    state_dir: Path | None = None
    sites: list[str] = []
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("sites")
    @classmethod
    def _sites_are_names(cls, value: list[str]) -> list[str]:
        for site in value:
            if problem := check_site(site, field="sites"):
                raise ValueError(problem.message)
        if len(set(value)) != len(value):
            raise ValueError("a site is named twice")
        return value


def load_settings(path: Path | None = None) -> HubSettings:
    """The settings in ``path``, else in the file that ``CALQUE_CONFIG`` names. Raises :class:`SettingsError`."""
    if path is None:
        named = os.environ.get(CONFIG_VARIABLE)
        if not named:
            raise SettingsError(f"{CONFIG_VARIABLE} is not set; let it name the hub's settings, a JSON file")
        path = Path(named)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"settings {path}: {error.strerror or error}") from None
    try:
        return HubSettings.model_validate_json(text)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors())
        raise SettingsError(f"settings {path}: " + "; ".join(faults).replace("\n", " ")) from None
