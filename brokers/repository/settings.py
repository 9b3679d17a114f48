"""What every copy repository broker is told at its start, beyond what every broker is told."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from brokers.sdk.settings import BrokerSettings, Section


class TlsSection(Section):
    """PEM files: our certificate, its key, and the authority that signs our peers' certificates. The certificate
    serves the endpoint and identifies us to other repositories."""

    cert: Path
    key: Path
    ca: Path


class RepositorySettings(BrokerSettings):
    """`host` is where the endpoint listens and what grants name. Port 0 picks a free one at the first start and
    keeps it in `state_dir`."""

    kind: Literal["crb"] = "crb"
    tls: TlsSection
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
