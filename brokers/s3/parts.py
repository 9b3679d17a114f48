"""In which parts an object is written.

The ETag of an object that was uploaded in parts is made of the digests of its parts. It stays the same when the object
is uploaded again in parts of the same sizes, and it tells how many there were; their size is told by what is usual.
"""

from __future__ import annotations

import re

MIB = 1 << 20
MOST_PARTS = 10_000
LARGEST_BYTES = 64 << 20
"""Bigger parts are not held in memory: the object gets another ETag then."""
SMALLEST_BYTES = 5 << 20
"""No part but the last may be smaller."""
_USUAL_MIB = (8, 16, 5, 10, 15, 20, 25, 32, 50, 64)
_ETAG = re.compile(r'"?[0-9a-f]{32}-([1-9][0-9]{0,4})"?')


def usual(size: int, least: int) -> int:
    """The size of parts where nothing speaks for another one: ``least``, or as much as the number of parts asks for."""
    return max(least, -(-size // MOST_PARTS))


def size_of_parts(size: int, etag: str) -> int:
    """The size of the parts of which an object with this ETag was made; 0 when it was written as a whole, or nothing
    fits."""
    found = _ETAG.fullmatch(etag)
    if found is None or size == 0:
        return 0
    count = int(found[1])
    for part in (*(each * MIB for each in _USUAL_MIB), _up(-(-size // count), MIB), -(-size // count)):
        if SMALLEST_BYTES <= part <= LARGEST_BYTES and -(-size // part) == count:
            return part
    return 0


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
