"""NATS tokens (JWT version 2, ``ed25519-nkey``): operators, accounts and users, minted without a vendor's tool.

A server in operator mode trusts what the operator signed: an account is its token, a user is a token that its account
(or a signing key of the account) signed, and proves itself with its seed. So whoever holds the operator's seed can
make and remove accounts on a running server, and nothing of it stands in the server's configuration.

Keys here are derived, not stored: the same seed and the same words give the same key, so a request that is repeated
after a crash gives the same accounts and credentials.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import nkeys

from schemas.secrets import Secret

Role = Literal["operator", "account", "user"]
Kind = Literal["operator", "account", "user", "generic"]

_PREFIXES: Mapping[Role, int] = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_sorted = msgspec.json.Encoder(order="deterministic")
UNLIMITED = -1


class TokenKey:
    """A key pair of NATS. ``public`` names it; ``seed`` is its secret, as text that begins with ``S``."""

    def __init__(self, seed: str) -> None:
        """Raises ``ValueError`` for what is no seed."""
        try:
            self._pair = nkeys.from_seed(bytearray(seed.encode()))
            self.public: str = bytes(self._pair.public_key).decode()
        except Exception as error:
            raise ValueError(f"no usable nkey seed ({type(error).__name__})") from None
        self._seed = seed

    @property
    def seed(self) -> Secret:
        return Secret(value=self._seed)

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature."""
        return bytes(self._pair.sign(data))

    def derive(self, role: Role, *words: str) -> TokenKey:
        """The key for these words: always the same one, and nobody without this seed can tell it."""
        message = "\0".join((role, *words)).encode()
        return key_from_bytes(hmac.digest(self._seed.encode(), message, hashlib.sha256), role)


def key_from_bytes(raw: bytes, role: Role) -> TokenKey:
    """The key whose 32 secret bytes these are."""
    return TokenKey(bytes(nkeys.encode_seed(raw, _PREFIXES[role])).decode())


def token(
    issuer: TokenKey,
    *,
    subject: str,
    name: str,
    kind: Kind,
    claims: Mapping[str, Any],
    issued_at: int,
    expires: int | None = None,
) -> str:
    """A signed token. ``issued_at`` and ``expires`` are in Unix seconds; the same arguments give the same token."""
    body: dict[str, Any] = {
        "iat": issued_at,
        "iss": issuer.public,
        "name": name,
        "sub": subject,
        "nats": {**claims, "type": kind, "version": 2},
    }
    if expires is not None:
        body["exp"] = expires
    digest = hashlib.sha256(_sorted.encode(body)).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_part(_HEADER)}.{_part(body)}"
    return f"{signed}.{_encode(issuer.sign(signed.encode()))}"


def claims_of(text: str) -> dict[str, Any]:
    """The body of a token that a server handed out; its signature is not looked at. Raises ``ValueError``."""
    parts = text.strip().split(".")
    if len(parts) != 3:
        raise ValueError("not a token")
    padded = parts[1] + "=" * (-len(parts[1]) % 4)
    return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=dict[str, Any])


def operator_token(key: TokenKey, *, name: str, system_account: str, issued_at: int) -> str:
    """The token that a server's configuration names as its operator."""
    claims = {"system_account": system_account}
    return token(key, subject=key.public, name=name, kind="operator", claims=claims, issued_at=issued_at)


def account_token(
    issuer: TokenKey,
    *,
    account: str,
    name: str,
    claims: Mapping[str, Any],
    issued_at: int,
    expires: int | None = None,
) -> str:
    """An account. Limits that ``claims`` doesn't name are off, except that it has no JetStream."""
    limits = {
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        "imports": 0,
        "exports": 0,
        "wildcards": False,
        "conn": UNLIMITED,
        "leaf": 0,
        **claims.get("limits", {}),
    }
    whole = {**claims, "limits": limits}
    return token(issuer, subject=account, name=name, kind="account", claims=whole, issued_at=issued_at, expires=expires)


def user_token(
    issuer: TokenKey, *, user: str, name: str, account: str, claims: Mapping[str, Any], issued_at: int
) -> str:
    """A user of ``account``, signed by the account's own key or by one of its signing keys."""
    own = dict(claims)
    if issuer.public != account:
        own["issuer_account"] = account
    return token(issuer, subject=user, name=name, kind="user", claims=own, issued_at=issued_at)


def credentials(user: str, seed: Secret) -> Secret:
    """The text of a ``.creds`` file, which every NATS client takes."""
    return Secret(
        value=(
            f"-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed.value}\n------END USER NKEY SEED------\n"
        )
    )


def _part(value: Mapping[str, Any]) -> str:
    return _encode(_sorted.encode(value))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
