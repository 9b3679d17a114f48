"""``docs/tour.md`` is true: its commands, one after the other, say what it shows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import HACKATHON, ROOT
from tests.e2e.tour.walk import Step, Walked, differs, kind_of, rewritten, steps, walk

PAGE = ROOT / "docs" / "tour.md"
DIRECTORY = HACKATHON


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where the tour's stack lies; stopped when the tour is over, however it ended."""
    place = tmp_path / "home"
    yield place
    subprocess.run(
        [sys.executable, "-m", "hub.cli.main", "down", "--home", str(place)], check=False, capture_output=True
    )


@pytest.mark.stack
@pytest.mark.xdist_group("stack")
@pytest.mark.full
async def test_the_tour_is_as_it_is_written(home: Path) -> None:
    def take() -> list[str]:
        found = (differs(each) for each in walk(PAGE.read_text(), home=home, directory=DIRECTORY))
        return [each for each in found if each is not None]

    different = await asyncio.to_thread(take)
    assert not different, "\n\n".join(different)


def test_a_step_is_a_command_and_what_is_shown_below_it() -> None:
    page = "text\n```console\n$ one \\\n    --two\nsaid\n\n$ three\n```\n```sh\n$ not this\n```\n"
    assert [(each.command, each.shown) for each in steps(page)] == [("one --two", ("said", "")), ("three", ())]


def test_what_differs_between_runs_is_compared_as_its_kind() -> None:
    assert kind_of("web  http://127.0.0.1:28232  1.5 MiB  3m") == kind_of("web http://127.0.0.1:1 20 B  45s")
    assert kind_of("web  running") != kind_of("web  stopped")
    shown = Walked(Step("x", ("saved  2.0 KiB",), 1, 2), 0, ("saved  7.1 MiB",))
    assert differs(shown) is None
    assert differs(Walked(shown.step, 0, ("failed  7.1 MiB",))) is not None


def test_the_page_is_written_with_what_was_said() -> None:
    page = "```console\n$ one\nold\nold\n$ two\n```\n"
    first, second = steps(page)
    assert rewritten(page, [Walked(first, 0, ("new",)), Walked(second, 0, ("also",))]) == (
        "```console\n$ one\nnew\n$ two\nalso\n```\n"
    )
