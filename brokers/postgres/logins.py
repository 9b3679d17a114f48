"""Where and as whom the broker, or somebody else, reaches a PostgreSQL server; URLs of servers and databases."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from schemas.brokers import Existing
from schemas.problems import CalqueError, invalid
from schemas.secrets import Secret

SCHEMES = ("postgresql", "postgres")
DEFAULT_PORT = 5432
_OPTIONS = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
}
_FORM = "write postgresql://USER@HOST:5432/DATABASE, with ?sslmode=... where it is needed"


class Login(NamedTuple):
    """One way in. ``options`` are those of libpq that say how the connection is secured."""

    host: str
    port: int
    user: str
    database: str
    password: Secret | None = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """For the programs of PostgreSQL: in the environment, never in the arguments."""
        found = {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGDATABASE": self.database}
        if self.password is not None:
            found["PGPASSWORD"] = self.password.value
        return found | {_OPTIONS[name]: value for name, value in self.options}

    @property
    def uri(self) -> Secret:
        """As applications take it, password and all."""
        password = f":{quote(self.password.value, safe='')}" if self.password is not None else ""
        query = f"?{urlencode(self.options)}" if self.options else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Secret(
            value=f"postgresql://{quote(self.user, safe='')}{password}@{host}:{self.port}"
            f"/{quote(self.database, safe='')}{query}"
        )


def read_url(url: str, *, password: Secret | None, field: str, database: str | None = None) -> Login:
    """The way in that ``url`` names; ``database`` where the URL names none. Raises ``invalid``; a URL at fault is not
    repeated, since somebody may have put a password into it."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise CalqueError(invalid(field, "that is no URL", _FORM)) from None
    name = unquote(parts.path.removeprefix("/")) or database
    if parts.scheme not in SCHEMES or not parts.hostname or not parts.username or not name:
        raise CalqueError(invalid(field, "that is no URL of a PostgreSQL database with a user in it", _FORM))
    if parts.password is not None:
        raise CalqueError(invalid(field, "the URL holds a password", "give it as a secret"))
    options = tuple(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted({option for option, _ in options} - _OPTIONS.keys())
    if unknown:
        raise CalqueError(invalid(field, f"the option {unknown[0]} can't be given", f"use: {', '.join(_OPTIONS)}"))
    return Login(parts.hostname, port, unquote(parts.username), name, password, options)


def existing_login(existing: Existing) -> Login:
    """The way into a database that was there before. Raises ``invalid``."""
    return read_url(existing.url, password=existing.secret, field="attach")
