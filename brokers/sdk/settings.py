"""What a broker is told at its start: the JSON file that the environment variable ``CALQUE_CONFIG`` names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.names import check_name, check_site
from schemas.values import BrokerKind

CONFIG_VARIABLE = "CALQUE_CONFIG"


class SettingsError(Exception):
    """The settings can't be used; the message is one line that names the file, the field and the cause."""


class Section(BaseModel):
    """The base of all parts of the settings: a field that nobody reads is an error, not a silent typo.

    Errors never repeat the input, which may hold a secret.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BusSection(Section):
    """How to reach the site's NATS server."""

    servers: list[str] = Field(min_length=1)
    nkey_seed_file: str | None = None
    name: str = "calque"


class BrokerSettings(Section):
    """What every broker is told; a broker adds fields in a class of its own.

    ``state_dir`` is the broker's alone and is kept between runs.
    """

    bus: BusSection
    site: str
    kind: BrokerKind
    name: str
    state_dir: Path
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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


S = TypeVar("S", bound=BrokerSettings)


def load_settings(model: type[S], *, path: Path | None = None) -> S:
    """The settings in ``path``, else in the file that ``CALQUE_CONFIG`` names. Raises :class:`SettingsError`."""
    if path is None:
        named = os.environ.get(CONFIG_VARIABLE)
        if not named:
            raise SettingsError(f"{CONFIG_VARIABLE} is not set; let it name the broker's settings, a JSON file")
        path = Path(named)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"settings {path}: {error.strerror or error}") from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors())
        raise SettingsError(f"settings {path}: " + "; ".join(faults).replace("\n", " ")) from None
