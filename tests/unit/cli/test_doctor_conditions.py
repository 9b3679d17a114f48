"""What the doctor finds in what hub and sites say of their condition: one test per finding."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from bus.condition import ConsumerCondition
from bus.stalls import Stalls
from hub.cli.certificate_checks import check_certificates
from hub.cli.condition_checks import (
    check_consumers,
    check_disks,
    check_limits,
    check_snapshots,
    check_stuck,
)
from hub.cli.findings import CHECKS, Finding
from hub.stack.keys import open_keys
from hub.stack.layout import HomeLayout
from schemas.conditions import ConditionView, ConsumerView
from schemas.queries import BrokerView, SiteView
from schemas.signals import SiteCondition
from tests.unit.cli.scripted import operation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WELL = ConditionView(
    hub="hub",
    position=500,
    behind=0,
    consumers=(ConsumerView(stream="JOBS", name="jobs", pending=0, unacknowledged=0),),
)
SITE = SiteView(
    name="north",
    state="online",
    condition=SiteCondition(
        position=9, outbox_bytes=1, outbox_limit_bytes=100, disk_free_bytes=50 << 30, disk_total_bytes=100 << 30
    ),
)


def with_condition(**changes: object) -> SiteView:
    assert SITE.condition is not None
    return msgspec.structs.replace(SITE, condition=msgspec.structs.replace(SITE.condition, **changes))


def one(findings: list[Finding]) -> Finding:
    [found] = findings
    assert found.check in CHECKS
    assert found.state == "problem", found
    assert found.remedy
    return found


def test_all_is_well() -> None:
    findings = [
        *check_consumers(WELL, [SITE]),
        *check_snapshots(WELL),
        *check_disks([SITE]),
        *check_limits([]),
        *check_stuck([operation("o", "succeeded")]),
    ]
    assert {finding.state for finding in findings} == {"ok"}


def test_a_consumer_that_gets_nowhere_is_found_and_one_of_a_site_that_is_away_is_not() -> None:
    stuck = ConsumerView(stream="JOBS", name="jobs", pending=3, unacknowledged=1, stalled_seconds=120)
    found = one(check_consumers(msgspec.structs.replace(WELL, consumers=(stuck,)), [SITE]))
    assert found.subject == "JOBS/jobs"
    assert "4 messages" in found.message
    assert "calque logs hub" in found.remedy
    assert found.since
    commands = ConsumerView(stream="CMD", name="north", pending=3, unacknowledged=0, stalled_seconds=120)
    waiting = msgspec.structs.replace(WELL, consumers=(commands,))
    assert "north-agent" in one(check_consumers(waiting, [SITE])).remedy
    away = msgspec.structs.replace(SITE, state="offline")
    assert [finding.state for finding in check_consumers(waiting, [away])] == ["ok"]


def test_for_how_long_a_consumer_has_not_moved() -> None:
    now = 0.0
    stalls = Stalls(seconds=lambda: now)
    at = ConsumerCondition("JOBS", "jobs", pending=1, unacknowledged=0, floor=7)
    assert stalls.stalled_seconds(at) == 0
    now = 70.0
    assert stalls.stalled_seconds(at) == 70
    assert stalls.stalled_seconds(at._replace(floor=8)) == 0
    now = 80.0
    assert stalls.stalled_seconds(at._replace(floor=8)) == 10
    assert stalls.stalled_seconds(at._replace(pending=0)) == 0
    now = 90.0
    assert stalls.stalled_seconds(at._replace(floor=8)) == 0


def test_a_hub_that_is_behind_its_own_record_is_found() -> None:
    found = one(check_consumers(msgspec.structs.replace(WELL, behind=900, behind_seconds=40.0), [SITE]))
    assert "900 events" in found.message


def test_a_hub_without_a_new_snapshot_is_found_only_when_its_start_would_take_long() -> None:
    many = msgspec.structs.replace(WELL, position=1_000_000, snapshot_failures={"write": 3})
    found = one(check_snapshots(many))
    assert "there is none" in found.message
    assert "write (3)" in found.message
    old = msgspec.structs.replace(many, snapshot_at="2026-01-01T00:00:00Z", snapshot_position=950_000)
    assert "3 could not be written" in one(check_snapshots(old)).message
    fine = msgspec.structs.replace(old, snapshot_failures={"torn": 1})
    assert [finding.state for finding in check_snapshots(fine)] == ["ok"]


def test_a_disk_of_a_site_that_is_nearly_full_is_found() -> None:
    assert one(check_disks([with_condition(disk_free_bytes=1 << 29)])).subject == "north"
    assert one(check_disks([with_condition(disk_free_bytes=4 << 30)])).subject == "north"
    silent = msgspec.structs.replace(SITE, condition=None)
    assert [finding.state for finding in check_disks([silent])] == ["ok"]


def test_limits_of_brokers_are_notes_and_no_fault() -> None:
    broker = BrokerView(site="north", kind="dsb", name="postgres", state="registered", limits=("no role can be made",))
    [found] = check_limits([broker])
    assert (found.state, found.subject, found.message) == ("note", "north/dsb-postgres", "no role can be made")


def test_an_operation_that_never_ends_is_found() -> None:
    old = operation("o-1", "running", created_at="2025-12-31T22:00:00Z", undoing=True)
    young = operation("o-2", "running", created_at="2025-12-31T23:30:00Z")
    found = one(check_stuck([old, young], now=NOW))
    assert "undoes" in found.message
    assert "calque operation cancel o-1" in found.remedy
    assert found.since == "2025-12-31T22:00:00Z"


def test_certificates_that_run_out_are_found(tmp_path: Path) -> None:
    assert [finding.state for finding in check_certificates(tmp_path)] == ["skipped"]
    open_keys(HomeLayout(tmp_path).keys, sites=("north",), brokers=("crb-filesystem",), principals=("admin",))
    assert [finding.state for finding in check_certificates(tmp_path)] == ["ok"]
    far = datetime.now(UTC) + timedelta(days=365 * 200)
    gone = check_certificates(tmp_path, now=far)
    assert {finding.message for finding in gone} == {"it has expired"}
    assert any(finding.subject.endswith("ca.pem") and "every *.pem" in finding.remedy for finding in gone)
    first = min(datetime.fromisoformat(finding.since) for finding in gone)
    soon = check_certificates(tmp_path, now=first - timedelta(days=10))
    assert "expires in 10 days" in soon[0].message
    leaf = HomeLayout(tmp_path).keys / "hub" / "leaf.pem"
    shutil.copy(leaf.with_suffix(".key"), leaf)
    assert "can't be read" in one(check_certificates(tmp_path)).message
