"""Which repositories a site has: what is wished, what is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.stack.errors import StackError
from hub.stack.repositories import chosen, remember, remembered

SITES = ("north", "south")


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ((), {}),
        (("s3",), {"north": ("s3",), "south": ("s3",)}),
        (("filesystem", "s3", "s3"), {"north": ("filesystem", "s3"), "south": ("filesystem", "s3")}),
        (("south=s3", "south=filesystem"), {"south": ("s3", "filesystem")}),
        (("filesystem", "south=postgres"), {"north": ("filesystem",), "south": ("filesystem", "postgres")}),
    ],
)
def test_wishes(wishes: tuple[str, ...], expected: dict[str, tuple[str, ...]]) -> None:
    assert chosen(wishes, sites=SITES) == expected


@pytest.mark.parametrize(
    ("wish", "message"),
    [("tape", "there are filesystem, s3, postgres"), ("west=s3", "it has north, south"), ("north=", "no kind ''")],
)
def test_a_wish_that_can_not_be_names_what_there_is(wish: str, message: str) -> None:
    with pytest.raises(StackError, match=message):
        chosen((wish,), sites=SITES)


def test_a_home_remembers_also_sites_that_are_not_started(tmp_path: Path) -> None:
    file = tmp_path / "repositories.json"
    assert remembered(file, sites=SITES) == {"north": ("filesystem",), "south": ("filesystem",)}
    remember(file, {"south": ("s3", "postgres")})
    remember(file, {"north": ("s3",)})
    assert remembered(file, sites=("south", "west")) == {"south": ("s3", "postgres"), "west": ("filesystem",)}
