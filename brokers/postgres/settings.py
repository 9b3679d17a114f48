"""What the PostgreSQL broker is told beyond what every broker is told."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from brokers.masking.transformers import Custom
from brokers.postgres.instant.settings import InstantSection
from brokers.postgres.logins import DEFAULT_PORT, Login, read_url
from brokers.postgres.parallel.settings import ParallelSection
from brokers.postgres.physical.settings import DedicatedSection
from brokers.sdk.errors import read_value
from brokers.sdk.prices import PricedSettings
from brokers.sdk.settings import Section
from schemas.problems import CalqueError
from schemas.secrets import Secret


class AdminSection(Section):
    """Who makes databases and roles: a superuser, or a role with CREATEDB and CREATEROLE. Either ``url``
    (``postgresql://USER@HOST:PORT/DATABASE?sslmode=...``, no password in it), or ``host``, ``port``, ``user`` and
    ``database``. The password is read from its file at each connect, so it may be changed."""

    url: str | None = None
    host: str | None = None
    port: int = Field(default=DEFAULT_PORT, gt=0, lt=65536)
    user: str = "postgres"
    password_file: Path
    database: str = "postgres"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (self.host is None):
            raise ValueError("give either url or host")
        if self.url is not None:
            try:
                read_url(self.url, password=None, field="url", database=self.database)
            except CalqueError as error:
                raise ValueError(error.problem.sentence()) from None
        return self

    def login(self) -> Login:
        """The way in. Raises :class:`CalqueError` when the password's file can't be read."""
        password = Secret(value=read_value(self.password_file, field="admin.password_file"))
        return self.address._replace(password=password)

    @property
    def address(self) -> Login:
        """The way in, without the password."""
        if self.url is not None:
            return read_url(self.url, password=None, field="admin.url", database=self.database)
        return Login(str(self.host), self.port, self.user, self.database)


class AdvertiseSection(Section):
    """Where app services reach the server."""

    host: str
    port: int = Field(gt=0, lt=65536)


class TransformerSection(Section):
    """A masking transformer of the operator's own: ``function`` (``module:name``) is called with a value and a key (32
    bytes, its own in each image) and gives the masked value; both are texts. ``unique``: it gives different values for
    different ones."""

    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    unique: bool = False

    @field_validator("function")
    @classmethod
    def _there(cls, function: str) -> str:
        _imported(function)
        return function

    def custom(self) -> Custom:
        """The same as masking takes it."""
        return Custom(_imported(self.function), unique=self.unique)


class PostgresSettings(PricedSettings):
    """``bin_dir`` holds ``pg_dump`` and ``pg_restore`` of the server's major version or a newer one. ``transformers``
    are those that masking rules may call ``custom NAME``."""

    admin: AdminSection
    bin_dir: Path
    advertise: AdvertiseSection | None = None
    instant: InstantSection = InstantSection()
    transformers: dict[str, TransformerSection] = {}
    dedicated: DedicatedSection | None = None
    parallel: ParallelSection = ParallelSection()

    @property
    def reachable(self) -> AdvertiseSection:
        """Where bindings point."""
        address = self.admin.address
        return self.advertise or AdvertiseSection(host=address.host, port=address.port)


def _imported(function: str) -> Callable[[str, bytes], str]:
    module, _, name = function.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{function} can't be imported: {error}") from None
    if not callable(found):
        raise ValueError(f"{function} is no function")
    made: Callable[[str, bytes], str] = found
    return made
