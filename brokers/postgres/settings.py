"""What the PostgreSQL broker is told beyond what every broker is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from brokers.postgres.logins import Login
from brokers.sdk.errors import read_value
from brokers.sdk.prices import PricedSettings
from brokers.sdk.settings import Section
from schemas.secrets import Secret


class AdminSection(Section):
    """A superuser of the server. The password is read from its file at each connect, so it may be changed."""

    host: str
    port: int = Field(gt=0, lt=65536)
    user: str = "postgres"
    password_file: Path
    database: str = "postgres"

    def login(self) -> Login:
        """The way in. Raises :class:`CalqueError` when the password's file can't be read."""
        password = Secret(value=read_value(self.password_file, field="admin.password_file"))
        return Login(self.host, self.port, self.user, self.database, password)


class AdvertiseSection(Section):
    """Where app services reach the server."""

    host: str
    port: int = Field(gt=0, lt=65536)


class PostgresSettings(PricedSettings):
    """``bin_dir`` holds ``pg_dump`` and ``pg_restore`` of the server's major version or a newer one."""

    admin: AdminSection
    bin_dir: Path
    advertise: AdvertiseSection | None = None

    @property
    def reachable(self) -> AdvertiseSection:
        """Where bindings point."""
        return self.advertise or AdvertiseSection(host=self.admin.host, port=self.admin.port)
