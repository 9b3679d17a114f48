"""Which repositories a site has: what is wished, what is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.stack.errors import StackError
from hub.stack.repositories import chosen, directory_of, name_of, remember, remembered

SITES = ("north", "south")


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ((), {}),
        (("s3",), {"north": ("s3",), "south": ("s3",)}),
        (("filesystem", "s3", "s3"), {"north": ("filesystem", "s3"), "south": ("filesystem", "s3")}),
        (("south=s3", "south=filesystem"), {"south": ("s3", "filesystem")}),
        (("filesystem", "south=postgres"), {"north": ("filesystem",), "south": ("filesystem", "postgres")}),
        (("north=s3", "north=disk:/mnt/a=b:c"), {"north": ("s3", "disk:/mnt/a=b:c")}),
    ],
)
def test_wishes(wishes: tuple[str, ...], expected: dict[str, tuple[str, ...]]) -> None:
    assert chosen(wishes, sites=SITES) == expected


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("tape", "there are filesystem, s3, postgres"),
        ("west=s3", "it has north, south"),
        ("north=", "no kind ''"),
        ("disk:/mnt", "SITE=disk:/mnt"),
        ("north=Disk:/mnt", "repository 'Disk'"),
        ("north=s3:/mnt", "'s3' is a kind"),
        ("north=disk:", "name the directory"),
        ("west=disk:/mnt", "it has north, south"),
    ],
)
def test_a_wish_that_can_not_be_names_what_there_is(wish: str, message: str) -> None:
    with pytest.raises(StackError, match=message):
        chosen((wish,), sites=SITES)


def test_one_name_is_one_repository() -> None:
    with pytest.raises(StackError, match="another of the name 'disk'"):
        chosen(("north=disk:/a", "north=disk:/b"), sites=SITES)
    both = chosen(("north=disk:/a", "south=disk:/b"), sites=SITES)
    assert {site: (name_of(one), directory_of(one)) for site, (one,) in both.items()} == {
        "north": ("disk", Path("/a")),
        "south": ("disk", Path("/b")),
    }


def test_a_home_remembers_also_sites_that_are_not_started(tmp_path: Path) -> None:
    file = tmp_path / "repositories.json"
    assert remembered(file, sites=SITES) == {"north": ("filesystem",), "south": ("filesystem",)}
    remember(file, {"south": ("s3", "postgres")})
    remember(file, {"north": ("s3",)})
    assert remembered(file, sites=("south", "west")) == {"south": ("s3", "postgres"), "west": ("filesystem",)}
