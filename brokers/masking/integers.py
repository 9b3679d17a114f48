"""Integers that stay integers of their type: permutations within ranges that no type's bounds cut through.

The ranges are the same for every type, so that a smallint and the bigint that refers to it become the same number.
"""

from __future__ import annotations

from bisect import bisect_right

from brokers.masking.keyed import Keyed
from brokers.masking.permute import Permutation

_BOUNDS = (2**15, 2**31, 2**63)
_TENS = tuple(sorted({*(10**power for power in range(1, 19)), *_BOUNDS}))


class Integers:
    """Other integers, under one key. ``keep_length``: of as many digits."""

    def __init__(self, key: Keyed, *, keep_length: bool) -> None:
        self._permutation = Permutation(key)
        self._ends = _TENS if keep_length else _BOUNDS

    def __call__(self, number: int) -> int:
        """Another one, in the range of every type that ``number`` fits; negative ones stay negative."""
        if number < 0:
            return -1 - self(-1 - number)
        which = bisect_right(self._ends, number)
        if which == len(self._ends):
            raise ValueError("it is beyond 64 bits")
        first = self._ends[which - 1] if which else 0
        return first + self._permutation(number - first, self._ends[which] - first, tweak=b"%d" % which)
