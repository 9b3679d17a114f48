"""Limits of bandwidth as people write them."""

import pytest

from schemas.rates import parse_rate


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("50MiB/s", 50 << 20),
        ("50M", 50 << 20),
        ("50 MB/s", 50 << 20),
        ("1.5k", 1536),
        ("2GiB", 2 << 30),
        ("900", 900),
        ("off", 0),
        ("0", 0),
    ],
)
def test_rates(text: str, bytes_per_second: int) -> None:
    assert parse_rate(text) == bytes_per_second


@pytest.mark.parametrize("text", ["", "fast", "-5M", "5X", "M", "0.1", "5 M B", "1e6"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no rate|less than"):
        parse_rate(text)
