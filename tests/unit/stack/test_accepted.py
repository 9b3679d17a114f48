"""Which images the sites of a stack take in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.stack.accepted import chosen, settle
from hub.stack.errors import StackError


def test_a_wish_is_for_all_sites_or_for_one_and_the_last_counts() -> None:
    assert chosen((), sites=("north", "south")) == {}
    assert chosen(("masked", "north=any"), sites=("north", "south")) == {"north": "any", "south": "masked"}


@pytest.mark.parametrize("wish", ["hidden", "east=masked", "north="])
def test_a_wish_that_can_not_be_is_refused(wish: str) -> None:
    with pytest.raises(StackError, match=r"images .*(any or masked|no site 'east')"):
        chosen((wish,), sites=("north", "south"))


def test_what_was_chosen_holds_until_something_else_is(tmp_path: Path) -> None:
    file = tmp_path / "images.json"
    assert settle(file, {}) == {}
    assert settle(file, {"south": "masked"}) == {"south": "masked"}
    assert settle(file, {}) == {"south": "masked"}
    assert settle(file, {"south": "any"}) == {"south": "any"}
