"""When, what and where to: the rules of deliveries that need no network."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from yarl import URL

from bus.records import record
from hub.webhooks.addresses import NotAllowed, check, is_public
from hub.webhooks.filters import EVERYTHING, subjects, wants
from hub.webhooks.schedule import delay_seconds, pause_seconds, retry_after_seconds
from schemas.envelope import encode, wrap
from schemas.events import WebhookRemoved
from schemas.values import Requester
from schemas.webhooks import WebhookSpec

NOW = datetime(2026, 2, 1, 12, 0, tzinfo=UTC)


def spec(**more: object) -> WebhookSpec:
    return WebhookSpec(url="https://example.org/", **more)  # type: ignore[arg-type]


def test_delays_double_up_to_the_longest_and_spread() -> None:
    middle = [delay_seconds(attempt, first=2, longest=60, dice=0.5) for attempt in range(1, 8)]
    assert middle == [2, 4, 8, 16, 32, 60, 60]
    assert delay_seconds(1, first=10, longest=60, dice=0) == 8
    assert delay_seconds(1, first=10, longest=60, dice=1) == pytest.approx(12)
    assert delay_seconds(10_000, first=2, longest=60, dice=0.5) == 60


def test_what_the_receiver_asks_for_never_shortens_a_delay_and_has_a_bound() -> None:
    assert delay_seconds(1, first=2, longest=60, dice=0.5, asked=30) == 30
    assert delay_seconds(5, first=2, longest=60, dice=0.5, asked=1) == 32
    assert delay_seconds(1, first=2, longest=60, dice=0.5, asked=1e9) == 86400


def test_a_receiver_is_left_alone_only_after_several_failures() -> None:
    assert [pause_seconds(failures, first=1) for failures in range(9)] == [0, 0, 0, 1, 2, 4, 8, 16, 30]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Sun, 01 Feb 2026 12:00:30 GMT", 30),
        ("Sun, 01 Feb 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, now=NOW) == seconds


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (spec(), ["calque.evt.*.*.*.*"]),
        (spec(types=("image.saved",)), ["calque.evt.*.image.*.saved"]),
        (spec(types=("copy", "*.failed"), sites=("north",)), [EVERYTHING]),
        (
            spec(types=("image.saved", "image.failed"), sites=("north", "hub")),
            [
                "calque.evt.hub.image.*.failed",
                "calque.evt.hub.image.*.saved",
                "calque.evt.north.image.*.failed",
                "calque.evt.north.image.*.saved",
            ],
        ),
    ],
)
def test_filters_are_narrow_and_never_overlap(wanted: WebhookSpec, expected: list[str]) -> None:
    assert subjects(wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (spec(), True),
        (spec(types=("webhook.removed",)), True),
        (spec(types=("webhook",)), True),
        (spec(types=("*.removed",), sites=("hub",)), True),
        (spec(types=("webhook.added",)), False),
        (spec(types=("*.added", "image.*")), False),
        (spec(sites=("north",)), False),
    ],
)
def test_an_event_is_wanted_by_type_and_site(wanted: WebhookSpec, taken: bool) -> None:
    event = wrap(WebhookRemoved(by=Requester(principal="alice")), id="1", source="hub", time="2026-02-01T12:00:00Z")
    recorded = record(sequence=1, subject="calque.evt.hub.webhook.ci.removed", payload=encode(event))
    assert wants(wanted, recorded) is taken


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_an_address_in_a_url_is_looked_at_and_a_name_is_left_to_the_resolver() -> None:
    check(URL("https://example.org/x"))
    for url in ("http://127.0.0.1/x", "http://[::1]:80/x", "http://169.254.169.254/latest"):
        with pytest.raises(NotAllowed):
            check(URL(url))
