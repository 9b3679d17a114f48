"""What every copy repository broker is told at its start, beyond what every broker is told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from brokers.repository.format1.repository import Options
from brokers.repository.retention import LONGEST_SECONDS, Period
from brokers.sdk.settings import BrokerSettings, Section
from schemas.rates import Rate


class TlsSection(Section):
    """PEM files: our certificate, its key, and the authority that signs our peers' certificates. The certificate
    serves the endpoint and identifies us to other repositories."""

    cert: Path
    key: Path
    ca: Path


class RepositorySettings(BrokerSettings):
    """`host` is where the endpoint listens and what grants name. Port 0 picks a free one at the first start and
    keeps it in `state_dir`.

    `key_file` holds the key that opens the repository (made at first use, in `state_dir` if not given); `recipients`
    are public keys (hex) that shall be able to open it too; `domain_key_file` the secret of the trust domain that a
    new repository gets: repositories that share it exchange only what the other lacks. `pack_mib` is the size from
    which a pack is full. `listing_delay_seconds`: by how much a listing of the store may lag behind what was done to
    it (a directory that several machines share over NFS: 120); 0 where it doesn't. `bwlimit` is how fast bytes come and
    go at most, all together (`50MiB/s`; 0 or `off`: as fast as they can). `retention`: how long copies that are
    committed from now on can't be deleted (`7d`, `12h`; 0 or `off`: not at all)."""

    kind: Literal["crb"] = "crb"
    tls: TlsSection
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    key_file: Path | None = None
    recipients: tuple[str, ...] = ()
    domain_key_file: Path | None = None
    pack_mib: int = Field(default=32, ge=1, le=256)
    listing_delay_seconds: float = Field(default=0.0, ge=0)
    bwlimit: Annotated[Rate, Field(ge=0)] = 0
    retention: Annotated[Period, Field(ge=0, le=LONGEST_SECONDS)] = 0.0

    def options(self) -> Options:
        """How a repository of format 1 is opened."""
        return Options(
            recipient_key=self.key_file,
            recipients=self.recipients,
            domain_key=self.domain_key_file,
            pack_bytes=self.pack_mib << 20,
            listing_delay_seconds=self.listing_delay_seconds,
            retention_seconds=self.retention,
        )
