"""The form of a home: which version of the program wrote it last, and how an older home becomes one of ours.

``<home>/home.json`` holds the layout's number, the version that wrote it, and the upgrades that were made. Homes of
0.1 have no such file: their layout is 1. An upgrade runs when the home is locked and nothing of it runs; every step
may be cut off at any point and is repeated whole by the next start. What the parts keep in streams and repositories
needs none: each reads what older versions wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub.stack.errors import StackError
from hub.stack.files import read_json, write_json
from hub.stack.layout import HomeLayout

LAYOUT = 2
FIRST_LAYOUT = 1
FIRST_VERSION = "0.1.0"
POSTGRES_VERSION_FILE = "PG_VERSION"


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """One upgrade that was made. ``at`` is RFC 3339, UTC."""

    layout: int
    before: str
    version: str
    at: str


@dataclass(frozen=True, kw_only=True)
class HomeRecord:
    """What ``home.json`` says."""

    layout: int
    version: str
    upgrades: tuple[Upgrade, ...] = field(default=())


def read_record(layout: HomeLayout) -> HomeRecord | None:
    """What is known of the home; ``None`` for one that is empty. Raises :class:`StackError` for a damaged record."""
    try:
        document = read_json(layout.record)
        if document is not None:
            return _record(document)
    except (ValueError, TypeError, KeyError) as error:
        raise StackError(
            f"{layout.record} can't be read ({error}): restore it from a copy of the home, "
            f"or remove it if the home was made by {FIRST_VERSION}"
        ) from None
    if layout.keys.exists():
        return HomeRecord(layout=FIRST_LAYOUT, version=FIRST_VERSION)
    return None


def upgrade(layout: HomeLayout, *, version: str, now: datetime | None = None) -> Upgrade | None:
    """Bring the home, which is locked and at rest, to the layout of this program; the upgrade that was made.

    Raises :class:`StackError` for a home that a newer version wrote, which is left as it is.
    """
    found = read_record(layout)
    if found is None:
        _write(layout, HomeRecord(layout=LAYOUT, version=version))
        return None
    if found.layout > LAYOUT:
        raise StackError(
            f"the home {layout.home} was written by calque {found.version} (layout {found.layout}); this is {version} "
            f"(layout {LAYOUT}): install {found.version} or a later version, or name another home with --home"
        )
    for number in range(found.layout, LAYOUT):
        _STEPS[number](layout)
    if (found.layout, found.version) == (LAYOUT, version):
        return None
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    made = Upgrade(layout=LAYOUT, before=found.version, version=version, at=moment)
    _write(layout, HomeRecord(layout=LAYOUT, version=version, upgrades=(*found.upgrades, made)))
    return made


def check_postgres(data: Path, *, programs: str) -> None:
    """Raise :class:`StackError` when the cluster in ``data`` is of another major version than ``programs`` are."""
    try:
        made_by = (data / POSTGRES_VERSION_FILE).read_text().strip()
    except FileNotFoundError:
        return
    if made_by != programs:
        raise StackError(
            f"the cluster in {data} is of PostgreSQL {made_by}, and the programs are of {programs}: save its apps with "
            f"the version of calque that ran it and run the images in a new home, or use pg_upgrade of {programs}"
        )


def _settings_are_written_anew(layout: HomeLayout) -> None:
    """1 to 2: ready files and settings of parts that no longer exist would be taken for those of running ones."""
    for directory in (layout.config, layout.run):
        for file in directory.glob("*.json") if directory == layout.config else directory.glob("*.ready"):
            file.unlink(missing_ok=True)


_STEPS: dict[int, Callable[[HomeLayout], None]] = {1: _settings_are_written_anew}
"""From which layout each step leads to the next."""


def _record(document: dict[str, Any]) -> HomeRecord:
    return HomeRecord(
        layout=int(document["layout"]),
        version=str(document["version"]),
        upgrades=tuple(Upgrade(**each) for each in document.get("upgrades", [])),
    )


def _write(layout: HomeLayout, record: HomeRecord) -> None:
    write_json(layout.record, asdict(record))
