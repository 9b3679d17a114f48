"""Data services that were there before: how a deployment names them.

A ``url`` says where it is and as whom, never with what: the password or secret key is a secret of the site, by
reference. Which URLs a broker takes is the broker's word:

    postgresql://USER@HOST:PORT/DATABASE
    s3://BUCKET?endpoint=https://HOST:PORT&region=REGION&access_key=KEY
    file:///ABSOLUTE/PATH
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

from schemas.problems import Problem, invalid
from schemas.site_secrets import check_reference
from schemas.values import Attachment

MOST_CHARACTERS = 2000
_TELLING = ("password", "passwd", "passfile", "sslpassword", "secret", "token", "signature", "secret_key", "sslkey")


def check_attachments(attach: Mapping[str, Attachment], *, known: Mapping[str, object]) -> Iterator[Problem]:
    """What is wrong with the attachments of a deployment; ``known`` are the data services of its template."""
    for name, attachment in attach.items():
        if name not in known:
            listed = ", ".join(sorted(known))
            yield invalid(
                f"attach.{name}",
                f"there is no data service {name!r} in the template",
                f"name one of: {listed}" if listed else None,
            )
        elif problem := check_attachment(attachment, field=f"attach.{name}"):
            yield problem


def check_attachment(attachment: Attachment, *, field: str) -> Problem | None:
    """``None`` when it may be stored and sent. What is refused is not repeated: it may hold a password."""
    try:
        parts = urlsplit(attachment.url)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        return invalid(field, "that is no URL", "write SCHEME://..., such as postgresql://user@host:5432/database")
    if secret_in(parts):
        return invalid(
            field,
            "the URL holds a password, which would be kept in the record of events",
            "leave it out of the URL; set it with 'calque secret set NAME', and name it with --attach-secret",
        )
    if not parts.scheme or not (parts.netloc or parts.path.startswith("/")) or len(attachment.url) > MOST_CHARACTERS:
        return invalid(field, "that is no URL", "write SCHEME://..., such as postgresql://user@host:5432/database")
    if not attachment.url.isprintable():
        return invalid(field, "the URL holds characters that can't be printed", "write them as %XX")
    if attachment.secret is not None:
        return check_reference(attachment.secret, field=f"{field}.secret")
    return None


def secret_in(parts: SplitResult) -> bool:
    """Whether the URL has a password or key in it."""
    if parts.password is not None or parts.fragment:
        return True
    names = [name.lower().replace("-", "_") for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return any(telling == name or name.endswith(f"_{telling}") for name in names for telling in _TELLING)
