"""What the agent is told at its start: the JSON file that the environment variable ``CALQUE_CONFIG`` names."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONFIG_VARIABLE = "CALQUE_CONFIG"


class SettingsError(Exception):
    """The settings can't be used; one line that names the file, the field and the cause."""


class BusSection(BaseModel):
    """How to reach the site's own NATS server. ``inbox_prefix``: where replies go, out of the brokers' hearing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    servers: list[str] = Field(min_length=1)
    nkey_seed_file: str | None = None
    name: str = "agent"
    inbox_prefix: str = "_INBOX"


class AgentSettings(BaseModel):
    """``seal_key_file`` and ``secrets_key_file`` hold 32 bytes in hexadecimal each; ``hub``: joins a hub."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    bus: BusSection
    site: str
    state_dir: Path
    seal_key_file: Path
    secrets_key_file: Path
    hub: bool = True
    log_level: str = "info"


def load_settings() -> AgentSettings:
    """The settings; raises :class:`SettingsError`."""
    named = os.environ.get(CONFIG_VARIABLE)
    if not named:
        raise SettingsError(f"{CONFIG_VARIABLE} is not set; let it name the agent's settings, a JSON file")
    try:
        return AgentSettings.model_validate_json(Path(named).read_bytes())
    except OSError as error:
        raise SettingsError(f"settings {named}: {error.strerror or error}") from None
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors())
        raise SettingsError(f"settings {named}: " + "; ".join(faults)) from None
