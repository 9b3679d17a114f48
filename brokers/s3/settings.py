"""What the S3 broker is told beyond what every broker is told."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from brokers.sdk.prices import PricedSettings


class S3Settings(PricedSettings):
    """The administrator's keys stand in files, one value each. ``advertise_endpoint`` is where app services reach
    the server, when it is not ``endpoint``. ``iam_endpoint`` is the IAM API, when it is not ``endpoint``.
    ``addressing`` says where requests name the bucket: in the path, or (``virtual``) in the host.
    ``session_token_file`` belongs to keys that hold for a time, and is renewed with them. ``ca_file``: the authorities
    that may have signed certificates of S3 servers, in place of the system's. ``archived``: what happens with objects
    that lie in an archive when a copy begins. To have them brought back (``restore``) costs the owner of the bucket:
    for ``archive_days``, by ``archive_tier``; it is waited for as long as ``archive_wait_hours``, and looked for every
    ``archive_poll_seconds``."""

    endpoint: str = Field(pattern=r"^https?://[^/?#@\s]+/?$")
    region: str = "us-east-1"
    addressing: Literal["path", "virtual"] = "path"
    access_key_file: Path
    secret_key_file: Path
    session_token_file: Path | None = None
    ca_file: Path | None = None
    advertise_endpoint: str | None = Field(default=None, pattern=r"^https?://")
    iam_endpoint: str | None = Field(default=None, pattern=r"^https?://")

    archived: Literal["refuse", "restore", "leave_out"] = "refuse"
    archive_days: int = Field(default=7, ge=1, le=30)
    archive_tier: Literal["Expedited", "Standard", "Bulk"] = "Standard"
    archive_wait_hours: float = Field(default=5.5, ge=0, le=5.5)
    archive_poll_seconds: float = Field(default=60.0, gt=0)

    @property
    def virtual(self) -> bool:
        """Whether the host names the bucket."""
        return self.addressing == "virtual"

    @property
    def reachable(self) -> str:
        """Where bindings point."""
        return self.advertise_endpoint or self.endpoint
