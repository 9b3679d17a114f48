"""From data services and bindings to accounts of NATS and back. Pure: no I/O, no clock.

A data service is an account, so its subjects are its own whatever they are called. A binding is a signing key of the
account whose *scope* holds the permissions, with one user signed by it: taking the key away takes the user's access
away, also from those connected. All keys are derived from the operator's seed, so no request needs kept state, and
what the broker knows of an account stands in the account's own token.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from bus.tokens import TokenKey, account_token, claims_of, credentials, user_token
from schemas.secrets import Secret
from schemas.unreadable import UNREADABLE
from schemas.values import Channel

LIFETIME_SECONDS = 100 * 365 * 86400
"""A server keeps a deleted account in memory as an expired one; only a token with an expiry makes it live again."""

CONNECTIONS = 200
SUBSCRIPTIONS = 10_000
PAYLOAD_BYTES = 1 << 20
REPLY_SECONDS = 300
_NOTHING = {"deny": [">"]}


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What an account's token says of its data service. ``since`` is in Unix seconds."""

    service_id: str
    plan: str
    since: int
    labels: dict[str, str] = {}
    restored_bytes: int = 0


class Account(NamedTuple):
    """An account as its token describes it. ``scopes`` are its bindings, by id."""

    public: str
    label: Label
    scopes: dict[str, dict[str, Any]]


class Credentials(NamedTuple):
    """What an app service logs in with."""

    user: str
    token: Secret
    seed: Secret
    file: Secret


def account_key(operator: TokenKey, service_id: str) -> TokenKey:
    """The key of a data service's account."""
    return operator.derive("account", "calque", service_id)


def signed(operator: TokenKey, label: Label, scopes: dict[str, dict[str, Any]]) -> str:
    """The account's token, signed by the operator."""
    account = account_key(operator, label.service_id)
    claims = {
        "description": msgspec.json.encode(label).decode(),
        "limits": {"conn": CONNECTIONS, "subs": SUBSCRIPTIONS, "payload": PAYLOAD_BYTES},
        "signing_keys": [scopes[role] for role in sorted(scopes)],
    }
    return account_token(
        operator,
        account=account.public,
        name=f"calque {label.service_id}",
        claims=claims,
        issued_at=label.since,
        expires=label.since + LIFETIME_SECONDS,
    )


def read(token: str) -> Account | None:
    """The account of a token that the server keeps; ``None`` when it is not one of ours."""
    try:
        claims = claims_of(token)
        own = claims["nats"]
        label = msgspec.json.decode(own.get("description", ""), type=Label)
    except (ValueError, KeyError, *UNREADABLE):
        return None
    keys = own.get("signing_keys") or []
    scopes = {key["role"]: key for key in keys if isinstance(key, dict) and key.get("role")}
    return Account(public=str(claims["sub"]), label=label, scopes=scopes)


def scope_key(account: TokenKey, *, binding_id: str, secret: Secret) -> TokenKey:
    """The signing key of one binding: another secret, another key."""
    return account.derive("account", "binding", binding_id, secret.value)


def scope(key: TokenKey, *, binding_id: str, channel: Channel | None, inbox: str) -> dict[str, Any]:
    """The binding as it stands in the account's token: what its user may publish and subscribe."""
    said = channel or Channel()
    template: dict[str, Any] = {
        "pub": {"allow": list(said.sends)} if said.sends else _NOTHING,
        "sub": {"allow": [*said.receives, f"{inbox}.>"]} if said.sends or said.receives else _NOTHING,
        "subs": -1,
        "data": -1,
        "payload": -1,
    }
    if said.receives:
        template["resp"] = {"max": 1, "ttl": REPLY_SECONDS * 1_000_000_000}
    return {"kind": "user_scope", "key": key.public, "role": binding_id, "template": template}


def user_credentials(account: TokenKey, scope_of: TokenKey, *, name: str, since: int) -> Credentials:
    """The user of a binding: the same arguments give the same credentials."""
    user = scope_of.derive("user", "user")
    text = user_token(
        scope_of,
        user=user.public,
        name=name,
        account=account.public,
        claims={"pub": {}, "sub": {}},
        issued_at=since,
    )
    return Credentials(user=user.public, token=Secret(value=text), seed=user.seed, file=credentials(text, user.seed))


def inbox_of(*, app_service: str, binding_id: str) -> str:
    """Where replies to an app service go: nobody else of the app may listen there."""
    return f"_INBOX_{app_service or hashlib.sha256(binding_id.encode()).hexdigest()[:16]}"
