"""Keyed permutations of 0 .. size - 1: different numbers stay different, and the key alone leads back.

Small sizes have a drawn order to step along, so that no number stays what it is. Larger ones go through a Feistel
network that adds within two halves whose product is the size, or a little more: then again and again until the number
is below the size (cycle walking, as in NIST SP 800-38G).
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from brokers.masking.keyed import Keyed

TABLE_SIZE: Final = 4096
FEW: Final = 2**40
"""Below this size a network has more rounds."""
MANY_ROUNDS: Final = 8
ROUNDS: Final = 4


class Permutation:
    """The permutations of one key, one for each size and tweak."""

    def __init__(self, key: Keyed) -> None:
        self._key = key
        self._tables: dict[int, tuple[list[int], list[int]]] = {}

    def __call__(self, number: int, size: int, *, tweak: bytes = b"", half: int | None = None) -> int:
        """Where ``number`` goes among ``size``; another ``tweak`` is another permutation. ``half`` is a number near the
        root of ``size``, best one that divides it."""
        if size <= 1:
            return number
        if size <= TABLE_SIZE:
            order, place = self._tables.get(size) or self._table(size)
            return order[(place[number] + 1 + self._key.number(b"step" + tweak, size - 1)) % size]
        low = half or isqrt(size - 1) + 1
        high = -(-size // low)
        about = b"%x/%b/" % (size, tweak)
        while True:
            left, right = divmod(number, low)
            for turn in range(MANY_ROUNDS if size < FEW else ROUNDS):
                if turn % 2:
                    right = (right + self._drawn(about, turn, left, low)) % low
                else:
                    left = (left + self._drawn(about, turn, right, high)) % high
            number = left * low + right
            if number < size:
                return number

    def _table(self, size: int) -> tuple[list[int], list[int]]:
        """All numbers in a drawn order, and the place of each: steps along it never end where they began."""
        order = list(range(size))
        for last in range(size - 1, 0, -1):
            other = self._key.number(b"%d of %d" % (last, size), last + 1)
            order[last], order[other] = order[other], order[last]
        place = [0] * size
        for number, each in enumerate(order):
            place[each] = number
        self._tables[size] = order, place
        return order, place

    def _drawn(self, about: bytes, turn: int, half: int, below: int) -> int:
        said = about + bytes((turn,)) + half.to_bytes((half.bit_length() + 7) // 8 or 1)
        return int.from_bytes(self._key.digest(said, size=min(64, 16 + below.bit_length() // 8)))
