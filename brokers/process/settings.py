"""What the process broker is told beyond what every broker is told."""

from __future__ import annotations

from pydantic import Field

from brokers.sdk.settings import BrokerSettings


class ProcessSettings(BrokerSettings):
    """``stop_seconds`` bounds the grace that services get when the broker itself is stopped; it must leave time
    for killing what is left before the broker's own process has to be gone."""

    stop_seconds: float = Field(default=3.5, gt=0, le=60)
