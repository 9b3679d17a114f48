"""Where an S3 server is and with which keys: the broker's own, or that of a bucket which was there before."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from brokers.s3.settings import S3Settings
from brokers.sdk.errors import read_value
from schemas.brokers import Existing
from schemas.problems import CalqueError, invalid
from schemas.secrets import Secret

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENDPOINT = re.compile(r"https?://[^/?#@\s]+/?")
_OPTIONS = frozenset({"endpoint", "region", "access_key", "addressing"})
_FORM = "write s3://BUCKET?endpoint=https://HOST:PORT&region=REGION&access_key=KEY"

_TEMPORARY = "ASIA"
"""How Amazon's access keys begin that are worth nothing without a session token."""


class Keys(NamedTuple):
    """With what requests are signed. ``token`` belongs to keys that hold for a time."""

    access_key: str
    secret: Secret
    token: Secret | None = None


class Place(NamedTuple):
    """``keys`` is asked again and again, since keys are renewed: it raises :class:`CalqueError` when they can't be had.
    ``virtual``: a bucket is named by the host, not by the path. ``ca_file`` holds the authorities that are trusted, in
    place of the system's."""

    endpoint: str
    region: str
    keys: Callable[[], Keys]
    iam_endpoint: str | None = None
    virtual: bool = False
    ca_file: Path | None = None


class ExistingBucket(NamedTuple):
    """A bucket of the user's."""

    place: Place
    bucket: str
    access_key: str
    secret: Secret


def own_place(settings: S3Settings) -> Place:
    """The server that the broker speaks for, with the administrator's keys as their files say."""

    def keys() -> Keys:
        secret = Secret(value=read_value(settings.secret_key_file, field="secret_key_file"))
        token = None
        if settings.session_token_file is not None:
            token = Secret(value=read_value(settings.session_token_file, field="session_token_file"))
        return Keys(read_value(settings.access_key_file, field="access_key_file"), secret, token)

    return Place(
        settings.endpoint, settings.region, keys, settings.iam_endpoint, settings.virtual, ca_file=settings.ca_file
    )


def existing_bucket(existing: Existing, *, settings: S3Settings) -> ExistingBucket:
    """The bucket that the URL names; endpoint and region are the broker's own where it names none. Raises
    ``invalid``; a URL at fault is not repeated, since somebody may have put a key into it."""
    parts = urlsplit(existing.url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or parts.path not in ("", "/"):
        raise CalqueError(invalid("attach", "that is no URL of a bucket", _FORM))
    if unknown := sorted(options.keys() - _OPTIONS):
        raise CalqueError(invalid("attach", f"the option {unknown[0]} can't be given", _FORM))
    endpoint, access_key = options.get("endpoint", settings.endpoint), options.get("access_key", "")
    if not _ENDPOINT.fullmatch(endpoint):
        raise CalqueError(invalid("attach", "the endpoint is no http or https address without a path", _FORM))
    if not access_key or existing.secret is None:
        missing = "the secret key" if access_key else "the access key"
        remedy = "name the secret that holds it: --attach-secret" if access_key else _FORM
        raise CalqueError(invalid("attach", f"{missing} is missing", remedy))
    if access_key.startswith(_TEMPORARY):
        remedy = "make an access key that stays, of a user that may list and read the bucket"
        raise CalqueError(
            invalid("attach", "the access key is a temporary one, and would end before a copy does", remedy)
        )
    addressing = options.get("addressing", settings.addressing)
    if addressing not in ("path", "virtual"):
        raise CalqueError(invalid("attach", "the addressing is neither path nor virtual", _FORM))
    secret, virtual = existing.secret, addressing == "virtual"
    region, keys = options.get("region", settings.region), Keys(access_key, secret)
    place = Place(endpoint, region, lambda: keys, virtual=virtual, ca_file=settings.ca_file)
    return ExistingBucket(place, parts.netloc, access_key, secret)
