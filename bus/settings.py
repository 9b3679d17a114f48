"""What a process on the bus is told at its start: the JSON file that the environment variable ``CALQUE_CONFIG`` names.

Hub, agents and brokers each add fields in a class of their own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus.connection import BusSettings
from bus.loglines import LogFormat

CONFIG_VARIABLE = "CALQUE_CONFIG"


class SettingsError(Exception):
    """The settings can't be used; the message is one line that names the file, the field and the cause."""


class Section(BaseModel):
    """The base of all parts of the settings: a field that nobody reads is an error, not a silent typo.

    Errors never repeat the input, which may hold a secret.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BusSection(Section):
    """How to reach the NATS server, or one of a cluster. ``inbox_prefix``: where replies go, out of others' hearing.

    ``replicas``: how many servers of a cluster keep each stream that this process makes.
    """

    servers: list[str] = Field(min_length=1)
    nkey_seed_file: str | None = None
    name: str = "calque"
    inbox_prefix: str = "_INBOX"
    replicas: Literal[1, 3, 5] = 1

    def connection(self) -> BusSettings:
        """The same as the connection takes it."""
        return BusSettings(
            servers=list(self.servers),
            nkey_seed_file=self.nkey_seed_file,
            name=self.name,
            inbox_prefix=self.inbox_prefix,
            replicas=self.replicas,
        )


class ProcessSettings(Section):
    """What every process is told."""

    bus: BusSection
    PROCESS: ClassVar[str] = "process"
    """What kind of process it is, for traces."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: LogFormat = "auto"
    metrics_listen: str | None = Field(default=None, pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")
    """Where ``/metrics`` is shown, ``<host>:<port>``; port 0 is one that is free. Nowhere without it."""


P = TypeVar("P", bound=ProcessSettings)


def load_settings(model: type[P], *, path: Path | None = None) -> P:
    """The settings in ``path``, else in the file that ``CALQUE_CONFIG`` names. Raises :class:`SettingsError`."""
    if path is None:
        named = os.environ.get(CONFIG_VARIABLE)
        if not named:
            raise SettingsError(f"{CONFIG_VARIABLE} is not set; let it name the settings, a JSON file")
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
