"""Which copy repositories each site of a stack has: chosen once, remembered in the home, changed by choosing again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hub.stack.errors import StackError
from hub.stack.files import read_json, write_json
from hub.stack.names import check_name

KINDS = ("filesystem", "s3", "postgres")
DEFAULT = ("filesystem",)
MODULES: Mapping[str, str] = {
    "filesystem": "brokers.filesystem",
    "s3": "brokers.s3_repository",
    "postgres": "brokers.postgres_repository",
}
"""The program of each kind's broker, which is called ``crb-<kind>``."""

Repositories = Mapping[str, tuple[str, ...]]
"""What each site has, by its name: kinds, and ``NAME:DIRECTORY`` for a directory that is attached."""


def name_of(repository: str) -> str:
    """What a repository is called, of a kind or attached."""
    return repository.partition(":")[0]


def directory_of(repository: str) -> Path | None:
    """The directory of one that is attached; ``None`` for one of a kind."""
    _, colon, directory = repository.partition(":")
    return Path(directory) if colon else None


def module_of(repository: str) -> str:
    """The program of its broker."""
    return MODULES["filesystem" if directory_of(repository) else repository]


def chosen(wishes: Iterable[str], *, sites: Iterable[str]) -> Repositories:
    """What ``[SITE=]KIND`` and ``SITE=NAME:DIRECTORY`` say: a kind without a site is for all of them. Sites of which
    nothing is said are left out.

    Raises :class:`StackError` for an unknown kind or site, and for a directory that is nobody's or has no good name.
    """
    names = tuple(sites)
    found: dict[str, tuple[str, ...]] = {}
    for wish in wishes:
        site, separator, kind = wish.rpartition("=") if ":" not in wish else _attached(wish)
        if ":" not in kind and kind not in KINDS:
            raise StackError(f"repository {wish}: there is no kind {kind!r}; there are {', '.join(KINDS)}")
        if separator and site not in names:
            raise StackError(f"repository {wish}: the stack has no site {site!r}; it has {', '.join(names)}")
        for each in (site,) if separator else names:
            before = found.get(each, ())
            if kind not in before and name_of(kind) in map(name_of, before):
                raise StackError(f"repository {wish}: site {each} has another of the name {name_of(kind)!r}")
            found[each] = before if kind in before else (*before, kind)
    return found


def _attached(wish: str) -> tuple[str, str, str]:
    """``SITE=NAME:DIRECTORY``, taken apart as ``rpartition`` does."""
    head, _, directory = wish.partition(":")
    site, separator, name = head.rpartition("=")
    if not separator:
        raise StackError(f"repository {wish}: a directory belongs to one site: write SITE={wish}")
    if check_name(name, what="repository") in KINDS:
        raise StackError(f"repository {wish}: {name!r} is a kind of repository; call the directory otherwise")
    if not directory:
        raise StackError(f"repository {wish}: name the directory, as SITE=NAME:DIRECTORY")
    return site, separator, f"{name}:{Path(directory).expanduser().absolute()}"


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


def brokers_of(repositories: Iterable[str]) -> tuple[str, ...]:
    """The broker users of a site's repositories."""
    return tuple(f"crb-{name_of(each)}" for each in repositories)
