"""When a site's server is started anew because its connection to the hub is broken, and when not."""

from __future__ import annotations

import itertools

from hub.stack.leafwatch import MOST_PATIENCE_SECONDS, Link


def looks(link: Link, *, seconds: range, arrived: int | None, reachable: bool = True, beats: bool = True) -> list[int]:
    """At which of the seconds it was decided to start anew."""
    return [now for now in seconds if link.decide(now, arrived=arrived, reachable=reachable, beats=beats)]


def test_a_site_that_has_no_connection_while_the_hub_is_there_is_started_anew() -> None:
    assert looks(Link(60, 60), seconds=range(0, 66, 5), arrived=None) == [60]


def test_a_connection_over_which_nothing_arrives_is_none() -> None:
    link = Link(60, 60)
    assert not link.decide(0, arrived=7, reachable=True, beats=True)
    assert looks(link, seconds=range(5, 70, 5), arrived=7) == [65]


def test_a_site_whose_hub_is_away_is_left_alone() -> None:
    assert looks(Link(60, 60), seconds=range(0, 600, 5), arrived=None, reachable=False) == []
    assert looks(Link(60, 60), seconds=range(0, 600, 5), arrived=7, beats=False) == []


def test_whatever_arrives_begins_the_patience_anew() -> None:
    link = Link(60, 60)
    assert looks(link, seconds=range(0, 60, 5), arrived=None) == []
    assert not link.decide(60, arrived=1, reachable=True, beats=True)
    assert looks(link, seconds=range(65, 121, 5), arrived=None) == []


def test_what_did_not_help_is_tried_again_less_often() -> None:
    found = looks(Link(60, 60), seconds=range(0, 20_000, 5), arrived=None)
    pauses = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert pauses[:3] == [125, 245, 485]
    assert max(pauses) <= MOST_PATIENCE_SECONDS + 5
