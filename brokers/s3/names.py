"""The names of what the broker makes: a function of the ids alone, so that no request needs state to find it."""

from __future__ import annotations

import hashlib
import re

PREFIX = "calque-"
_SERVICE_DIGITS = 24
_BINDING_DIGITS = 16
BUCKET = re.compile(rf"{PREFIX}[0-9a-f]{{{_SERVICE_DIGITS}}}")
IDENTITY = re.compile(rf"({PREFIX}[0-9a-f]{{{_SERVICE_DIGITS}}})-[0-9a-f]{{{_BINDING_DIGITS}}}")


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def bucket_of(service_id: str) -> str:
    """The bucket of a data service."""
    return PREFIX + _digest(service_id, _SERVICE_DIGITS)


def identity_of(service_id: str, binding_id: str) -> str:
    """The IAM user of one binding; begins with the name of its bucket."""
    return f"{bucket_of(service_id)}-{_digest(binding_id, _BINDING_DIGITS)}"


def access_key_of(service_id: str, binding_id: str) -> str:
    """The access key of one binding, 20 characters as usual."""
    return "CALQUE" + _digest(f"{service_id}\n{binding_id}", 14).upper()
