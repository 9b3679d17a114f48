"""Locks on copies: how long a repository keeps what was committed, whoever asks for its deletion.

A repository with a retention writes into each commit object until when the copy is kept (`docs/repository-format.md`,
"Locked copies"). Nothing of a locked copy is deleted by way of this code, with one exception: the operation that
committed the copy may take it back, since it has not ended yet and no image counts that it would be missing from.

A store may do more and refuse by itself, whoever comes with its credentials: see :class:`RetainingStore`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

from pydantic import BeforeValidator

from brokers.repository.errors import RepositoryError
from schemas.problems import Actor

_FORM = re.compile(r"(\d+)\s*([smhdw])", re.IGNORECASE)
_END = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
LONGEST_SECONDS = 100 * 366 * 86400


class CopyLocked(RepositoryError):
    """The copy may not be deleted yet."""

    code = "locked"
    actor = Actor.CALLER
    remedy = "delete it when that time has passed; no setting shortens the lock of a copy that is there"


class Lock(NamedTuple):
    """Until when a copy is kept (RFC 3339, UTC, milliseconds: such texts sort as the times do; empty if it isn't
    locked), and the operation that committed it."""

    keep_until: str = ""
    operation: str = ""


UNLOCKED = Lock()


@runtime_checkable
class RetainingStore(Protocol):
    """An object store that can refuse by itself to delete an object. Deleting one then raises
    :class:`brokers.repository.objects.ObjectRetained`."""

    @property
    def retains(self) -> bool:
        """Whether it does: a bucket may not be made for it."""

    def retain(self, names: Iterable[str], *, until: str) -> None:
        """Keep these objects until then, at least (as in :class:`Lock`); one that is kept for longer stays so. Again
        is no change."""


def new_lock(*, now: float, seconds: float, operation: str) -> Lock:
    """The lock of a copy that is committed `now` (seconds since the epoch, by the store's clock)."""
    return Lock(_text(now + seconds), operation) if seconds > 0 else UNLOCKED


def locked(keep_until: str, *, now: float) -> bool:
    """Whether that time is still to come."""
    return keep_until > _text(now)


def is_lock_end(text: str) -> bool:
    """Whether a lock's end is written as it has to be; also if there is none."""
    if not text:
        return True
    try:
        return _END.fullmatch(text) is not None and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def check_unlocked(copy: str, locks: Iterable[Lock], *, now: float, operation: str) -> None:
    """Raises CopyLocked unless all these locks of a copy have passed, or are those of the asking `operation`."""
    for lock in locks:
        if locked(lock.keep_until, now=now) and not (operation and operation == lock.operation):
            raise CopyLocked(f"is locked until {lock.keep_until}", copy=copy)


def retains(objects: object) -> RetainingStore | None:
    """The store as one that locks objects by itself, if it is one."""
    return objects if isinstance(objects, RetainingStore) and objects.retains else None


def parse_period(text: str) -> float:
    """Seconds: `7d`, `12h`, `30m`, `90s`, `2w`; `off` and `0` are none. Raises ValueError."""
    if text.strip().lower() in ("off", "0"):
        return 0.0
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no period: write it like 7d, 12h, 30m or off")
    seconds = int(found[1]) * _UNITS[found[2].lower()]
    if seconds > LONGEST_SECONDS:
        raise ValueError(f"{text!r} is longer than 100 years")
    return float(seconds)


def _read(value: Any) -> Any:
    return parse_period(value) if isinstance(value, str) else value


Period = Annotated[float, BeforeValidator(_read)]
"""A setting of a time in seconds."""


def _text(seconds: float) -> str:
    moment = datetime.fromtimestamp(math.ceil(seconds * 1000) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
