"""The names that tie keys, accounts, streams and configurations of a stack together."""

from __future__ import annotations

import re

from hub.stack.errors import StackError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
HUB = "hub"


def check_name(name: str, *, what: str) -> str:
    """Return the name, or raise `StackError`: names become subjects, paths and certificate names."""
    if not _NAME.fullmatch(name):
        raise StackError(
            f"{what} {name!r}: use 1 to 40 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
        )
    return name


def check_site(site: str) -> str:
    """A name that may stand for a site. `hub` may not: it is a writer of events of its own."""
    if check_name(site, what="site") == HUB:
        raise StackError("site 'hub': this name belongs to the hub; choose another")
    return site


def site_account(site: str) -> str:
    """The account of a site on the hub's server."""
    return "SITE_" + site.upper().replace("-", "_")
