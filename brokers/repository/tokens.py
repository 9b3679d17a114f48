"""Tokens for one copy and one purpose. Stateless (HMAC-SHA256 over their claims with a key of this broker), so
that a restart of the broker breaks no copy that is under way."""

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Literal

import msgspec

from brokers.sdk.atomic import write_atomically

Purpose = Literal["read", "write"]
_KEY_BYTES = 32


class TokenRefused(Exception):
    """The token gives no access. `known` says whether it was one of ours (403) or none at all (401)."""

    def __init__(self, message: str, *, known: bool) -> None:
        super().__init__(message)
        self.known = known


class Claims(msgspec.Struct, frozen=True):
    """What a token says. `expires` is a Unix time in seconds; `client` the SHA-256 of the one client certificate
    that may use it, None for any. `parent` is the one other copy whose entries a writer may see and refer to."""

    copy: str
    purpose: Purpose
    expires: float
    client: str | None = None
    parent: str = ""


class TokenKey:
    """Makes and checks tokens."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def load_or_create(cls, path: Path) -> "TokenKey":
        """The key in `path` (mode 0600), made at first use."""
        if path.exists():
            return cls(path.read_bytes())
        path.parent.mkdir(parents=True, exist_ok=True)
        key = secrets.token_bytes(_KEY_BYTES)
        write_atomically(path, key)
        return cls(key)

    def issue(self, claims: Claims) -> str:
        body = _encode(msgspec.json.encode(claims))
        return f"{body}.{_encode(self._mac(body))}"

    def check(self, token: str, *, copy: str, purpose: Purpose, client: str | None, now: float) -> Claims:
        """What it says. Raises TokenRefused unless the token is ours, in time, for this copy and purpose, and shown
        with the client certificate that it is bound to."""
        body, _, mac = token.partition(".")
        try:
            if not hmac.compare_digest(_decode(mac), self._mac(body)):
                raise TokenRefused("the token is not one of this repository", known=False)
            claims = msgspec.json.decode(_decode(body), type=Claims)
        except (binascii.Error, ValueError) as error:
            raise TokenRefused("the token can't be read", known=False) from error
        if claims.expires <= now:
            raise TokenRefused("the token has expired: ask for a new grant", known=False)
        if claims.copy != copy:
            raise TokenRefused("the token is for another copy", known=True)
        if claims.purpose != purpose:
            raise TokenRefused(f"the token is not for {'reading' if purpose == 'read' else 'writing'}", known=True)
        if claims.client is not None and claims.client != client:
            raise TokenRefused("the token is bound to another client certificate", known=True)
        return claims

    def _mac(self, body: str) -> bytes:
        return hmac.new(self._key, body.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
