"""What the process of the webhooks is told at its start, on top of what every process on the bus is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bus.settings import ProcessSettings


class WebhooksSettings(ProcessSettings):
    """``secrets_key_file`` holds 32 bytes: the secrets of all webhooks are derived from it.

    ``allow_private`` lets deliveries go to loopback and private addresses: for one machine, not for a hub that
    strangers add webhooks to. ``ca_file`` is a PEM of authorities to trust instead of the system's. An event is tried
    again after ``first_delay_seconds``, twice that, and so on up to ``longest_delay_seconds``.
    """

    PROCESS = "webhooks"

    secrets_key_file: Path
    allow_private: bool = False
    ca_file: Path | None = None
    first_delay_seconds: float = Field(default=2.0, gt=0)
    longest_delay_seconds: float = Field(default=3600.0, gt=0)
