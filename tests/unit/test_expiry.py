"""Until when a command is good, by whose clock. Times are virtual."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schemas.envelope import Envelope, timestamp
from schemas.expiry import by_own_clock, expired, good_until
from schemas.problems import Problem

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def sent(at: datetime, *, good_for: timedelta | None = None) -> Envelope:
    end = None if good_for is None else timestamp(at + good_for)
    return Envelope(id="c", type="t", source="s", time=timestamp(at), specversion="1.0", expirytime=end)


def code(envelope: Envelope, *, now: datetime, stored: datetime | None = NOON) -> str | None:
    problem = expired(envelope, now=now, stored_at=stored.timestamp() if stored else None)
    return problem.code if problem else None


def test_a_command_is_good_until_its_end_and_not_longer() -> None:
    command = sent(NOON, good_for=HOUR)
    assert code(command, now=NOON + 59 * MINUTE) is None
    assert code(command, now=NOON + 61 * MINUTE) == "expired"
    problem = expired(command, now=NOON + 2 * HOUR, stored_at=NOON.timestamp())
    assert problem is not None
    assert "expired at 2026-01-01T13:00" in problem.message
    assert "it is 2026-01-01T14:00" in problem.message


@pytest.mark.parametrize("good_for", [None, 30 * DAY])
def test_seven_days_are_the_most(good_for: timedelta | None) -> None:
    command = sent(NOON, good_for=good_for)
    assert code(command, now=NOON + 7 * DAY - MINUTE) is None
    assert code(command, now=NOON + 7 * DAY + MINUTE) == "expired"


def test_what_is_sent_again_is_no_younger_for_it() -> None:
    command = sent(NOON, good_for=HOUR)
    assert code(command, stored=NOON + 2 * HOUR, now=NOON + 2 * HOUR) == "expired"
    unlimited = sent(NOON)
    assert code(unlimited, stored=NOON + 8 * DAY, now=NOON + 8 * DAY) == "expired"


def test_a_sender_s_clock_that_is_wrong_by_a_little_costs_nothing() -> None:
    behind = sent(NOON - 4 * MINUTE, good_for=2 * MINUTE)
    assert code(behind, now=NOON + MINUTE) is None
    assert code(behind, now=NOON + 3 * MINUTE) == "expired"  # its length counts from when it was stored
    ahead = sent(NOON + 3 * HOUR, good_for=HOUR)
    assert code(ahead, now=NOON + 59 * MINUTE) is None
    assert code(ahead, now=NOON + 61 * MINUTE) == "expired"


def test_a_clock_that_is_far_ahead_makes_no_command_live_longer() -> None:
    assert code(sent(NOON + 400 * DAY), now=NOON + 7 * DAY - MINUTE) is None
    assert code(sent(NOON + 400 * DAY), now=NOON + 7 * DAY + MINUTE) == "expired"


def test_without_the_server_s_time_the_sender_s_counts() -> None:
    for unknown in (None, 0.0):
        assert good_until(sent(NOON, good_for=HOUR), stored_at=unknown) == NOON + HOUR + 5 * MINUTE


def test_what_is_passed_on_carries_the_end_by_the_server_s_clock() -> None:
    behind = sent(NOON - 4 * MINUTE, good_for=2 * MINUTE)
    assert by_own_clock(behind, stored_at=NOON.timestamp()).expirytime == timestamp(NOON + 2 * MINUTE)


@pytest.mark.parametrize(
    ("time", "end"),
    [("soon", None), ("2026-01-01T12:00:00Z", "later"), ("9999-12-31T23:59:59Z", None), ("0001-01-01T00:00:00Z", None)],
)
def test_times_that_are_none_are_refused_and_nothing_raises(time: str, end: str | None) -> None:
    command = Envelope(id="c", type="t", source="s", time=time, specversion="1.0", expirytime=end)
    assert isinstance(expired(command, now=NOON, stored_at=NOON.timestamp()), Problem)


def test_an_end_before_it_was_sent_has_passed() -> None:
    assert code(sent(NOON, good_for=-MINUTE), now=NOON) == "expired"
