"""Where the database of a Postgres repository is, and how much it may hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from brokers.repository.settings import RepositorySettings
from brokers.sdk.errors import read_value
from brokers.sdk.settings import Section

SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class DatabaseSection(Section):
    """A database whose user may make a schema in it, or owns the one that is named.

    The password is read from its file at each connect, so it may be changed. ``limit_bytes`` is how much the objects
    may take together; without it nobody knows how much more fits.
    """

    host: str
    port: int = Field(default=5432, gt=0, lt=65536)
    user: str
    password_file: Path | None = None
    database: str
    schema_name: str = "calque_repository"
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ca_file: Path | None = None
    connections: int = Field(default=8, ge=1, le=64)
    limit_bytes: int | None = Field(default=None, gt=0)

    @field_validator("schema_name")
    @classmethod
    def _schema_needs_no_quoting(cls, value: str) -> str:
        if not SCHEMA.fullmatch(value) or value.startswith("pg_"):
            raise ValueError("is small letters, digits and '_', at most 63, and doesn't begin with 'pg_'")
        return value

    def password(self) -> str | None:
        """The password in its file, ``None`` without one. Raises :class:`CalqueError` when it can't be read."""
        if self.password_file is None:
            return None
        return read_value(self.password_file, field="database.password_file")


class PostgresRepositorySettings(RepositorySettings):
    """What the Postgres repository broker is told at its start, beyond what every copy repository broker is told."""

    name: str = "postgres"
    database: DatabaseSection
