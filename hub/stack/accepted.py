"""Which images each site of a stack takes in: chosen once, remembered in the home, changed by choosing again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hub.stack.errors import StackError
from hub.stack.files import read_json, write_json

ANY = "any"
KINDS = (ANY, "masked")


def chosen(wishes: Iterable[str], *, sites: Iterable[str]) -> Mapping[str, str]:
    """What ``[SITE=]any|masked`` says; without a site it is for all. Raises :class:`StackError`."""
    names = tuple(sites)
    found: dict[str, str] = {}
    for wish in wishes:
        site, separator, kind = wish.rpartition("=")
        if kind not in KINDS:
            raise StackError(f"images {wish}: a site takes {' or '.join(KINDS)} images")
        if separator and site not in names:
            raise StackError(f"images {wish}: the stack has no site {site!r}; it has {', '.join(names)}")
        found.update(dict.fromkeys((site,) if separator else names, kind))
    return found


def settle(file: Path, wanted: Mapping[str, str]) -> Mapping[str, str]:
    """What each site takes in that something was said of, now or before; kept for the next start."""
    known = read_json(file) or {}
    settled = {**known, **wanted}
    if settled != known:
        write_json(file, settled)
    return settled
