"""The kit itself: a broker that keeps the contract passes, and every check catches its own defect."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from brokers.testkit.bench import Options
from brokers.testkit.checks import CHECKS, EVERY_KIND
from brokers.testkit.report import Report, as_table
from brokers.testkit.run import conform
from bus.connection import Bus
from schemas.values import BrokerKind
from tests.unit.testkit.conftest import SITE, Serve

PEER = "peer"
UNANSWERED = {"any.input.empty", "any.input.huge", "any.input.deep", "any.input.line_breaks", "any.running.others"}
INTERNAL = {"any.input.not_json", "any.input.missing_field"}
PATIENCES = (0.7, 5.0)
"""Seconds: the second is for a machine that is too busy for the first."""
CASES = [(kind, check.id) for check in CHECKS.values() for kind in check.kinds[:1]]


async def report_of(
    bus: Bus,
    serve: Serve,
    kind: BrokerKind,
    *,
    only: tuple[str, ...] = (),
    defects: tuple[str, ...] = (),
    patience_seconds: float = 10.0,
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
        if ("no answer" in finding.problem) == (id in UNANSWERED):
            break
    assert finding.verdict == "failed", as_table(report)
    assert finding.problem
    assert finding.sentence in finding.contract
    # Caught for what it is, not because the machine is slow or the reference broker fell over
    assert ("no answer" in finding.problem) == (id in UNANSWERED), finding.problem
    assert "internal" not in finding.problem or id in INTERNAL, finding.problem
    assert "could not be removed" not in finding.problem, finding.problem
