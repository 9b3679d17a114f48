"""Dates that are moved by whole days, in ISO form, whatever the year (proleptic Gregorian, as PostgreSQL counts)."""

from __future__ import annotations

import re

from brokers.masking.keyed import Keyed

_ISO = re.compile(r"(\d{4,7})-(\d\d)-(\d\d)((?:[ T].*?)??)( BC)?")
_MOST_YEAR = 5_874_000
_LEAST_YEAR = -4_700


class NoDate(ValueError):
    """That is no date in ISO form."""


class Shift:
    """Moves dates by at most ``days``, and never by none."""

    def __init__(self, key: Keyed, *, days: int) -> None:
        self._key = key
        self._days = days
        self._all = self._drawn(b"")

    def __call__(self, text: str, by: str | None = None) -> str:
        """The date moved: all alike, or those of each value ``by`` alike. Raises :class:`NoDate`."""
        if text in ("infinity", "-infinity"):
            return text
        found = _ISO.fullmatch(text)
        if found is None:
            raise NoDate("it is not in ISO form")
        year = 1 - int(found[1]) if found[5] else int(found[1])
        moved = _days(year, int(found[2]), int(found[3])) + (
            self._all if by is None else self._drawn(b"=" + by.encode())
        )
        year, month, day = _civil(moved)
        year = min(max(year, _LEAST_YEAR), _MOST_YEAR)
        written = f"{year:04}" if year > 0 else f"{1 - year:04}"
        return f"{written}-{month:02}-{day:02}{found[4]}{' BC' if year <= 0 else ''}"

    def _drawn(self, about: bytes) -> int:
        days = self._key.number(about, 2 * self._days) - self._days
        return days if days < 0 else days + 1


def _days(year: int, month: int, day: int) -> int:
    """Days since 1 March of the year 0, counted in eras of 400 years."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year


def _civil(days: int) -> tuple[int, int, int]:
    """The inverse of :func:`_days`."""
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year + (month <= 2), month, day
