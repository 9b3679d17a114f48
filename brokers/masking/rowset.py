"""The rows of one table as digests of their keys, in 8 bytes each: which are there, and the place of each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final

DIGEST_BYTES: Final = 8
_BUCKETS: Final = 256
_SHIFT: Final = 8 * (DIGEST_BYTES - 1)


class SameDigest(Exception):
    """Two rows have the same digest, or the same row came twice."""


class RowSet:
    """Digests (numbers of 64 bits) in their order; the place of a row is that of its digest."""

    def __init__(self, digests: array[int], starts: list[int]) -> None:
        self._digests = digests
        self._starts = starts

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, digest: int) -> int:
        """The place of a row; -1 for one that is not there."""
        bucket = digest >> _SHIFT
        end = self._starts[bucket + 1]
        place = bisect_left(self._digests, digest, self._starts[bucket], end)
        return place if place < end and self._digests[place] == digest else -1

    def below(self, digest: int) -> int:
        """How many rows have a lesser digest."""
        return bisect_left(self._digests, digest) if digest < 1 << (8 * DIGEST_BYTES) else len(self)


class RowSetBuilder:
    """Takes digests in any order. Twice the memory of the set is used at most."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_BUCKETS)]

    def add(self, digest: int) -> None:
        """One row more."""
        self._buckets[digest >> _SHIFT].append(digest)

    def build(self) -> RowSet:
        """The set. Raises :class:`SameDigest`."""
        digests = array("Q")
        starts = [0]
        for number, bucket in enumerate(self._buckets):
            ordered = sorted(bucket)
            self._buckets[number] = array("Q")
            if len(set(ordered)) < len(ordered):
                raise SameDigest
            digests.extend(ordered)
            starts.append(len(digests))
        return RowSet(digests, starts)
