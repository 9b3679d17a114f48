"""What the operator says about servers of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from brokers.sdk.settings import Section


class DedicatedSection(Section):
    """``directory`` holds the servers, one directory each. They listen on ``host``, each on a port of its own from
    ``first_port`` to ``last_port``. ``user`` is whom they run as when the broker is root; without it ``postgres``, or
    ``nobody`` where there is no such user."""

    directory: Path
    host: str = "127.0.0.1"
    first_port: int = Field(default=20000, gt=1023, lt=65536)
    last_port: int = Field(default=29999, gt=1023, lt=65536)
    user: str | None = None

    @model_validator(mode="after")
    def _some_ports(self) -> Self:
        if self.last_port < self.first_port:
            raise ValueError("last_port is before first_port")
        return self
