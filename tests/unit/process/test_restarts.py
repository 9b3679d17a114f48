"""When a service is started again."""

from __future__ import annotations

from brokers.process.restarts import LONGEST_DELAY_SECONDS, after_exit, ending


def test_the_delay_doubles_up_to_its_cap_and_is_forgotten_when_stable() -> None:
    delays, crashes = [], 0
    for _ in range(12):
        restart = after_exit("always", exit_code=1, ran_seconds=0.1, crashes=crashes)
        assert restart is not None
        delays.append(restart.delay_seconds)
        crashes = restart.crashes
    assert delays[:5] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == LONGEST_DELAY_SECONDS == 30.0
    stable = after_exit("always", exit_code=1, ran_seconds=30.0, crashes=crashes)
    assert stable == (0.25, 1)
    assert after_exit("always", exit_code=1, ran_seconds=0, crashes=10**9) is not None


def test_policies() -> None:
    assert after_exit("never", exit_code=1, ran_seconds=0, crashes=0) is None
    assert after_exit("on-failure", exit_code=0, ran_seconds=0, crashes=0) is None
    assert after_exit("on-failure", exit_code=None, ran_seconds=0, crashes=0) is not None
    assert after_exit("on-failure", exit_code=-9, ran_seconds=0, crashes=0) is not None
    assert after_exit("always", exit_code=0, ran_seconds=0, crashes=0) is not None


def test_endings_are_told() -> None:
    assert [ending(code) for code in (3, -9, None)] == [
        "exited with code 3",
        "was killed by signal 9",
        "ended while the broker was away",
    ]
