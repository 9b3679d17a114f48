"""Secrets that a person gives a site: how they are set, named and referred to.

A reference is ``secret:<name>``. The value goes to the site sealed to its key, in request traffic (``calque.act``,
``calque.rpc``), and lies in the site's own encrypted store; events and replies hold names, versions and who it was.
"""

from __future__ import annotations

from schemas.base import Fact
from schemas.names import check_name
from schemas.problems import Problem, invalid, permanent
from schemas.questions import Query, View
from schemas.registry import message
from schemas.secrets import Sealed, Secret
from schemas.values import Requester

PREFIX = "secret:"
MOST_BYTES = 64 * 1024
"""The largest value, in UTF-8."""


def secret_reference(name: str) -> str:
    """How configuration refers to the secret ``name`` of its site."""
    return f"{PREFIX}{name}"


def name_in(reference: str) -> str:
    """The name in a reference that :func:`check_reference` found good."""
    return reference.removeprefix(PREFIX)


def check_reference(reference: str, *, field: str) -> Problem | None:
    """``None`` when ``reference`` is ``secret:<name>``, else the problem. A value put there by mistake is not shown."""
    if reference.startswith(PREFIX) and check_name(name_in(reference), field=field) is None:
        return None
    return invalid(field, "that is no reference to a secret", f"write {PREFIX}NAME; see: calque secret list")


def secret_not_set(name: str, *, site: str, field: str) -> Problem:
    """The site has no secret of this name; nobody but a person can change that."""
    return permanent(
        "secret_not_set",
        f"site {site} has no secret {name!r}",
        field=field,
        remedy=f"set it: calque secret set {name} --site {site}",
    )


class SecretContent(Fact, frozen=True, kw_only=True):
    """What is sealed: the value, and what it is meant for, so that a box can't be used for another name or site."""

    site: str
    name: str
    value: Secret


@message("act.secret_set")
class SetSecret(Query, frozen=True, kw_only=True):
    """Keep a secret at ``site`` under ``name``, in place of what was there. Idempotent by ``id``.

    ``sealed`` is a JSON ``SecretContent``, sealed to the site's key.
    """

    id: str
    site: str
    name: str
    sealed: Sealed


@message("act.secret_remove")
class RemoveSecret(Query, frozen=True, kw_only=True):
    """Forget a secret of ``site``. Idempotent by ``id``."""

    id: str
    site: str
    name: str


@message("rpc.secret_set")
class SiteSetSecret(Query, frozen=True, kw_only=True):
    """``SetSecret``, passed on with who asked for it."""

    id: str
    name: str
    sealed: Sealed
    by: Requester


@message("rpc.secret_remove")
class SiteRemoveSecret(Query, frozen=True, kw_only=True):
    """``RemoveSecret``, passed on with who asked for it."""

    id: str
    name: str
    by: Requester


@message("view.secret_changed")
class SecretChanged(View, frozen=True, kw_only=True):
    """The site has done it. ``version`` counts how often a secret of this name was set."""

    site: str
    name: str
    version: int


class SecretView(Fact, frozen=True, kw_only=True):
    """A secret of a site, without its value."""

    site: str
    name: str
    version: int
    set_by: str = ""
    set_at: str = ""


@message("query.secrets")
class SecretsQuery(Query, frozen=True, kw_only=True):
    """The names of secrets, of one site or of all."""

    site: str | None = None


@message("view.secrets")
class SecretsView(View, frozen=True, kw_only=True):
    """Secrets, without values."""

    secrets: tuple[SecretView, ...]
