"""The kit itself: a broker that keeps the contract passes, and every check catches its own defect."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from brokers.testkit.bench import Options
from brokers.testkit.checks import CHECKS, EVERY_KIND
from brokers.testkit.report import Finding, Report, as_table
from brokers.testkit.run import conform
from bus.connection import Bus
from schemas.values import BrokerKind
from tests.unit.testkit.conftest import SITE, Serve

PEER = "peer"
UNANSWERED = {"any.input.empty", "any.input.huge", "any.input.deep", "any.input.line_breaks", "any.running.others"}
INTERNAL = {"any.input.not_json", "any.input.missing_field"}
PATIENCES = (0.7, 5.0, 30.0)
"""Seconds: the next is for a machine that is too busy for the one before."""
CASES = [(kind, check.id) for check in CHECKS.values() for kind in check.kinds[:1]]


async def report_of(
    bus: Bus,
    serve: Serve,
    kind: BrokerKind,
    *,
    only: tuple[str, ...] = (),
    defects: tuple[str, ...] = (),
    patience_seconds: float = 60.0,
) -> Report:
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(serve(kind, name="reference", defects=defects))
        if kind == "crb":
            await stack.enter_async_context(serve(kind, name=PEER))
        return await conform(
            bus,
            site=SITE,
            kind=kind,
            broker="reference",
            options=Options(peer=PEER),
            restart=broker.restart,
            only=only,
            patience_seconds=patience_seconds,
        )


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_a_broker_that_keeps_the_contract_passes_every_check(bus: Bus, serve: Serve, kind: BrokerKind) -> None:
    report = await report_of(bus, serve, kind)
    assert report.conforms, as_table(report)
    assert report.count("skipped") == 0, as_table(report)


@pytest.mark.parametrize(("kind", "id"), CASES, ids=[id for _, id in CASES])
async def test_a_check_catches_its_defect(bus: Bus, serve: Serve, kind: BrokerKind, id: str) -> None:
    for patience_seconds in PATIENCES:
        report = await report_of(bus, serve, kind, only=(id,), defects=(id,), patience_seconds=patience_seconds)
        [finding] = report.findings
        if not _mistaken(id, finding):
            break
    assert finding.verdict == "failed", as_table(report)
    assert finding.problem
    assert finding.sentence in finding.contract
    assert not _mistaken(id, finding), finding.problem


def _mistaken(id: str, finding: Finding) -> bool:
    """Whether it was not caught for what it is, but because the machine is slow or the reference broker fell over."""
    unanswered = "no answer" in finding.problem
    internal = "internal" in finding.problem and id not in INTERNAL
    return unanswered != (id in UNANSWERED) or internal or "could not be removed" in finding.problem
