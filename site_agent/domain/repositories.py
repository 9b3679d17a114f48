"""Which of a site's copy repositories a copy goes into: what a command names, else what the policy says. Pure.

Without a policy it is the repository that the site registered first, of those that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from schemas.fitting import AWAY_SECONDS
from schemas.problems import Problem, conflict, not_found, temporary
from schemas.values import DataClass, DataServiceType


class Item(NamedTuple):
    """What is to be stored: one data service of an app. ``size`` in bytes, ``None`` while nobody knows it."""

    app: str
    template: str
    data_service: str
    type: DataServiceType
    data_class: DataClass
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Copies for which everything that is said holds go into ``repository``; what is left out holds for all.

    ``apps``, ``templates`` and ``data_services`` are patterns with ``*`` and ``?``. Sizes are bytes; a copy whose
    size nobody knows fits no rule that speaks of sizes.
    """

    repository: str
    data_classes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    data_services: tuple[str, ...] = ()
    at_least_bytes: int | None = None
    below_bytes: int | None = None

    def fits(self, item: Item) -> bool:
        """Whether it is about ``item``."""
        if self.at_least_bytes is not None and (item.size is None or item.size < self.at_least_bytes):
            return False
        if self.below_bytes is not None and (item.size is None or item.size >= self.below_bytes):
            return False
        return (
            (not self.data_classes or item.data_class in self.data_classes)
            and (not self.types or item.type in self.types)
            and _named(item.app, self.apps)
            and _named(item.template, self.templates)
            and _named(item.data_service, self.data_services)
        )


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The first rule that fits decides, else ``default``, else the order of registration."""

    rules: tuple[Rule, ...] = ()
    default: str | None = None

    def pick(self, item: Item) -> str | None:
        """The repository that the policy names for ``item``."""
        return next((rule.repository for rule in self.rules if rule.fits(item)), self.default)


NO_POLICY = Policy()


def place(
    items: Iterable[Item], *, site: str, wanted: str | None, policy: Policy, there: Sequence[str], known: Sequence[str]
) -> dict[str, str] | Problem:
    """Data service -> repository, or why that can't be.

    ``there`` are the repositories that answer, in the order of their registration; ``known`` also those that are
    lost. ``wanted`` is what the command names.
    """
    if problem := check_usable(wanted, site=site, there=there, known=known):
        return problem
    placed: dict[str, str] = {}
    for item in items:
        picked = wanted or policy.pick(item) or there[0]
        if picked not in there:
            return conflict(
                "repository",
                f"the policy of site {site} puts data service {item.data_service!r} into copy repository {picked!r}, "
                f"which is not there",
                f"start it, or choose one with --repository: {', '.join(there)}",
            )
        placed[item.data_service] = picked
    return placed


def home(*, wanted: str | None, policy: Policy, there: Sequence[str]) -> str:
    """The repository for the manifest of an image without copies; ``there`` is not empty."""
    return next((name for name in (wanted, policy.default) if name in there and name is not None), there[0])


def placed_at(request: dict[str, Any], data_service: str) -> str:
    """The repository that an operation chose for a data service when it was accepted."""
    placed: dict[str, str] = request.get("repositories", {})
    chosen: str = placed.get(data_service) or request["repository"]
    return chosen


def share(bytes_per_second: int, *, among: int) -> int:
    """What each of so many copies may take of a limit: they go at the same time."""
    return max(1, bytes_per_second // max(1, among))


def targets(request: dict[str, Any]) -> set[str]:
    """All repositories that an operation writes to."""
    return {request["repository"], *request.get("repositories", {}).values()}


def check_usable(
    wanted: str | None, *, site: str, there: Sequence[str], known: Sequence[str], to_write: bool = True
) -> Problem | None:
    """``None`` when a repository can be used: the one that is ``wanted``, or any when it is ``None``."""
    if not there and known and to_write:
        return _away(site, known)
    if not there and to_write:
        return conflict("site", f"site {site} has no copy repository", "start a copy repository broker there")
    if wanted is None or wanted in there:
        return None
    listed = ", ".join(there)
    if wanted in known:
        return _away(site, [wanted])
    return not_found(
        "repository",
        f"site {site} has no copy repository {wanted!r}",
        f"use one of: {listed}" if listed else "start a copy repository broker there",
    )


def _away(site: str, names: Iterable[str]) -> Problem:
    listed = ", ".join(repr(name) for name in names)
    return temporary(
        "broker_away",
        f"copy repository {listed} of site {site} does not answer now; send it again when it is back",
        retry_after_seconds=AWAY_SECONDS,
        field="repository",
    )


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
