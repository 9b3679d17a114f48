"""Which copy repositories each site of a stack has: chosen once, remembered in the home, changed by choosing again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hub.stack.errors import StackError
from hub.stack.files import read_json, write_json

KINDS = ("filesystem", "s3", "postgres")
DEFAULT = ("filesystem",)
MODULES: Mapping[str, str] = {
    "filesystem": "brokers.filesystem",
    "s3": "brokers.s3_repository",
    "postgres": "brokers.postgres_repository",
}
"""The program of each kind's broker, which is called ``crb-<kind>``."""

Repositories = Mapping[str, tuple[str, ...]]
"""The kinds of each site, by its name."""


def chosen(wishes: Iterable[str], *, sites: Iterable[str]) -> Repositories:
    """What ``[SITE=]KIND`` say: a kind without a site is for all of them. Sites of which nothing is said are left out.

    Raises :class:`StackError` for an unknown kind or site.
    """
    names = tuple(sites)
    found: dict[str, tuple[str, ...]] = {}
    for wish in wishes:
        site, separator, kind = wish.rpartition("=")
        if kind not in KINDS:
            raise StackError(f"repository {wish}: there is no kind {kind!r}; there are {', '.join(KINDS)}")
        if separator and site not in names:
            raise StackError(f"repository {wish}: the stack has no site {site!r}; it has {', '.join(names)}")
        for each in (site,) if separator else names:
            before = found.get(each, ())
            found[each] = before if kind in before else (*before, kind)
    return found


def remembered(file: Path, *, sites: Iterable[str]) -> Repositories:
    """What each of the sites had at the last start; the default for a new one."""
    known = read_json(file) or {}
    return {site: tuple(known.get(site, DEFAULT)) for site in sites}


def remember(file: Path, repositories: Repositories) -> None:
    """Keep what the sites have, also of sites that are not started now."""
    known = read_json(file) or {}
    wanted = {**known, **{site: list(kinds) for site, kinds in repositories.items()}}
    if wanted != known:
        write_json(file, wanted)


def brokers_of(kinds: Iterable[str]) -> tuple[str, ...]:
    """The broker users of a site's repositories."""
    return tuple(f"crb-{kind}" for kind in kinds)
