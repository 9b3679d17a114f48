"""What the application is told through its environment, checked once at the start.

========================  ===========================================================================
variable                  meaning
========================  ===========================================================================
``PORT``                  TCP port to listen on, 1 to 65535; chosen by the platform
``HOST``                  address to listen on; default ``127.0.0.1``
``IDEAS_URI``             ``postgresql://user:password@host:port/database``
``DOCS_ENDPOINT``         ``http://`` or ``https://`` address of the S3 server
``DOCS_BUCKET``           bucket of the documents
``DOCS_ACCESS_KEY``       access key of the bucket
``DOCS_SECRET_KEY``       secret key of the bucket
``DOCS_REGION``           region that requests are signed for; default ``us-east-1``
``THUMBS_PATH``           directory for previews of the documents; without it each is made when asked for
``TITLE``                 heading of the page; default ``Ideas``
========================  ===========================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit


class SettingsError(Exception):
    """An environment variable is missing or wrong; the message names it and says what is expected."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked settings. Values that hold a secret stay out of ``repr``."""

    host: str
    port: int
    title: str
    ideas_uri: str = field(repr=False)
    docs_endpoint: str
    docs_bucket: str
    docs_access_key: str = field(repr=False)
    docs_secret_key: str = field(repr=False)
    docs_region: str
    thumbs_path: Path | None

    def secrets(self) -> tuple[str, ...]:
        """Every string that must never be seen in a log line."""
        raw = urlsplit(self.ideas_uri).password or ""
        found = {self.docs_secret_key, self.ideas_uri, raw, unquote(raw)}
        return tuple(sorted((secret for secret in found if secret), key=len, reverse=True))


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read and check the settings.

    Raises:
        SettingsError: naming the first variable that is missing or wrong; never with a secret in it.
    """
    return Settings(
        host=_text(environment, "HOST", default="127.0.0.1"),
        port=_port(environment),
        title=_text(environment, "TITLE", default="Ideas"),
        ideas_uri=_postgres_uri(environment),
        docs_endpoint=_endpoint(environment),
        docs_bucket=_text(environment, "DOCS_BUCKET"),
        docs_access_key=_text(environment, "DOCS_ACCESS_KEY"),
        docs_secret_key=_text(environment, "DOCS_SECRET_KEY"),
        docs_region=_text(environment, "DOCS_REGION", default="us-east-1"),
        thumbs_path=_directory(environment),
    )


def _text(environment: Mapping[str, str], name: str, *, default: str | None = None) -> str:
    value = environment.get(name, "").strip()
    if value:
        return value
    if default is not None:
        return default
    raise SettingsError(f"{name} is not set; the template of this application binds it")


def _port(environment: Mapping[str, str]) -> int:
    value = _text(environment, "PORT")
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
        raise SettingsError(f"PORT must be a number from 1 to 65535, not {value!r}")
    return int(value)


def _postgres_uri(environment: Mapping[str, str]) -> str:
    value = _text(environment, "IDEAS_URI")
    expected = "expected postgresql://user:password@host:port/database"
    try:
        parts = urlsplit(value)
        complete = parts.scheme in ("postgresql", "postgres") and bool(parts.path.strip("/"))
        if parts.port == 0:
            complete = False
    except ValueError:
        raise SettingsError(f"IDEAS_URI is no URI; {expected}") from None
    if not complete:
        raise SettingsError(f"IDEAS_URI names no PostgreSQL database; {expected}")
    return value


def _directory(environment: Mapping[str, str]) -> Path | None:
    value = environment.get("THUMBS_PATH", "")
    if not value:
        return None
    if not Path(value).is_dir():
        raise SettingsError("THUMBS_PATH must be a directory that is there")
    return Path(value)


def _endpoint(environment: Mapping[str, str]) -> str:
    value = _text(environment, "DOCS_ENDPOINT")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError("DOCS_ENDPOINT must be the http:// or https:// address of an S3 server")
    return value.rstrip("/")
