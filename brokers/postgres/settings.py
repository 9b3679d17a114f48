"""What the PostgreSQL broker is told beyond what every broker is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from brokers.sdk.errors import read_value
from brokers.sdk.settings import BrokerSettings, Section


class AdminSection(Section):
    """A superuser of the server. The password is read from its file at each connect, so it may be changed."""

    host: str
    port: int = Field(gt=0, lt=65536)
    user: str = "postgres"
    password_file: Path
    database: str = "postgres"

    def password(self) -> str:
        """The password in its file. Raises :class:`CalqueError` when it can't be read."""
        return read_value(self.password_file, field="admin.password_file")


class AdvertiseSection(Section):
    """Where app services reach the server."""

    host: str
    port: int = Field(gt=0, lt=65536)


class PostgresSettings(BrokerSettings):
    """``bin_dir`` holds ``pg_dump`` and ``pg_restore`` of the server's major version or a newer one."""

    admin: AdminSection
    bin_dir: Path
    advertise: AdvertiseSection | None = None

    @property
    def reachable(self) -> AdvertiseSection:
        """Where bindings point."""
        return self.advertise or AdvertiseSection(host=self.admin.host, port=self.admin.port)
