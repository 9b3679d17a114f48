"""Objects that were made of parts are made of the same parts again, so that they keep their ETags."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.s3.parts import LARGEST_BYTES, MOST_PARTS, size_of_parts, usual

MIB = 1 << 20
DIGEST = "0" * 32


@settings(derandomize=True)
@given(part=st.sampled_from([5, 8, 16, 20, 32, 50, 64]), count=st.integers(20, MOST_PARTS), last=st.integers(1, MIB))
def test_usual_sizes_are_found_again(part: int, count: int, last: int) -> None:
    size = (count - 1) * part * MIB + last
    assert size_of_parts(size, f'"{DIGEST}-{count}"') == part * MIB


@settings(derandomize=True)
@given(size=st.integers(0, 1 << 42), count=st.integers(0, 99_999))
def test_what_is_found_gives_as_many_parts(size: int, count: int) -> None:
    part = size_of_parts(size, f"{DIGEST}-{count}")
    assert part == 0 or (-(-size // part) == count and 5 * MIB <= part <= LARGEST_BYTES)


def test_what_has_no_parts_is_written_as_usual() -> None:
    for etag in ("", f'"{DIGEST}"', f'"{DIGEST}-"', "abc-2", f"{DIGEST}-2-3"):
        assert size_of_parts(20 * MIB, etag) == 0
    assert size_of_parts(0, f"{DIGEST}-1") == 0
    assert size_of_parts(3 * MIB, f"{DIGEST}-2") == 0
    assert size_of_parts(1 << 40, f"{DIGEST}-3") == 0
    assert usual(20 * MIB, 8 * MIB) == 8 * MIB
    assert usual(1 << 40, 8 * MIB) * MOST_PARTS >= 1 << 40
