"""The names of what the broker makes: a function of the ids alone, so that no request needs state to find it.

Names are lower-case letters, digits and ``_``, at most 63 bytes, and need no quoting in SQL.
"""

from __future__ import annotations

import hashlib

PREFIX = "calque_"
_SERVICE_DIGITS = 24
_BINDING_DIGITS = 16

DATABASE_PATTERN = rf"^{PREFIX}[0-9a-f]{{{_SERVICE_DIGITS}}}$"
KEPT_PATTERN = rf"^{PREFIX}kept_[0-9a-f]{{{_SERVICE_DIGITS}}}$"
LOGIN_PATTERN = rf"^{PREFIX}[0-9a-f]{{{_SERVICE_DIGITS}}}_[0-9a-f]{{{_BINDING_DIGITS}}}$"


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def database_of(service_id: str) -> str:
    """The database of a data service, and the role that owns all in it."""
    return PREFIX + _digest(service_id, _SERVICE_DIGITS)


def login_of(service_id: str, binding_id: str) -> str:
    """The login role of one binding."""
    return f"{database_of(service_id)}_{_digest(binding_id, _BINDING_DIGITS)}"


def application_of(copy: str) -> str:
    """What the sessions of one copy call themselves, to be seen in ``pg_stat_activity``."""
    return f"calque copy {_digest(copy, _BINDING_DIGITS)}"


def kept_of(copy: str, root: str) -> str:
    """The kept database of a copy with these contents, and the role that owns all in it."""
    return f"{PREFIX}kept_{_digest(f'{copy}/{root}', _SERVICE_DIGITS)}"


def quoted(name: str) -> str:
    """An identifier as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'
