"""Names and tokens: what people may call things, and what may stand between two dots of a subject."""

from __future__ import annotations

import re

from schemas.problems import Problem, invalid

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")
TOKEN = re.compile(r"[A-Za-z0-9_@~/+=-]{1,200}")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}")
RESERVED_SITES = frozenset({"hub"})


def check_name(name: str, *, field: str) -> Problem | None:
    """``None`` when ``name`` is a name of ours, else the problem, which says what a name looks like."""
    if NAME.fullmatch(name):
        return None
    return invalid(
        field,
        f"{name!r} is not a name",
        "use 1 to 40 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    )


def check_version(version: str, *, field: str) -> Problem | None:
    """``None`` when ``version`` may name a version of a template, else the problem."""
    if VERSION.fullmatch(version):
        return None
    return invalid(field, f"{version!r} is not a version", "use up to 40 of 0-9, A-Z, a-z, '.', '+' and '-'")


def check_site(site: str, *, field: str) -> Problem | None:
    """``None`` when ``site`` may name a site; ``hub`` is no site's name."""
    if site in RESERVED_SITES:
        return invalid(field, f"{site!r} is reserved", "choose another name for the site")
    return check_name(site, field=field)


def template_token(name: str, version: str) -> str:
    """The id of the template aggregate: one token, reversible because versions hold no ``_``."""
    return f"{name}@{version.replace('.', '_')}"


def claim_token(team: str, kind: str, name: str) -> str:
    """The id of the claim aggregate that makes ``name`` unique per team and kind."""
    return f"{team}~{kind}~{name}"


def location_token(copy: str, repository: str) -> str:
    """The id of the aggregate *location(copy, repository)*; ``repository`` is ``<site>/<name>``."""
    return f"{copy}@{repository}"


def repository_token(site: str, name: str) -> str:
    """The id of a copy repository in subjects: ``<site>@<name>``."""
    return f"{site}@{name}"


def parse_repository_token(token: str) -> tuple[str, str] | None:
    """The site and the name in such an id, ``None`` when it is none."""
    site, at, name = token.partition("@")
    return (site, name) if at and NAME.fullmatch(site) and NAME.fullmatch(name) else None


def is_token(text: str) -> bool:
    """Whether ``text`` may stand between two dots of a subject."""
    return TOKEN.fullmatch(text) is not None
