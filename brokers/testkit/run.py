"""A conformance run: all checks of a kind against one broker, over the bus."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from brokers.testkit import (  # noqa: F401 - importing them registers the checks
    checks_crb,
    checks_crb_kept,
    checks_crb_tokens,
    checks_dsb,
    checks_dsb_attach,
    checks_dsb_copies,
    checks_found,
    checks_input,
    checks_operations,
    checks_psb,
    checks_psb_holds,
    checks_psb_hooks,
    checks_restart,
)
from brokers.testkit.bench import Bench, Options, Surroundings
from brokers.testkit.checks import CHECKS, Check, NotApplicable, Unmet
from brokers.testkit.conversation import Conversation
from brokers.testkit.copies import CopyServer
from brokers.testkit.crb_bench import CrbBench
from brokers.testkit.dsb_bench import DsbBench
from brokers.testkit.psb_bench import PsbBench
from brokers.testkit.report import Finding, Report, Verdict
from brokers.testkit.restarting import Restart, RestartGate
from bus.connection import Bus
from schemas.problems import CalqueError
from schemas.values import BrokerKind

BENCHES: dict[BrokerKind, type[Bench]] = {"dsb": DsbBench, "psb": PsbBench, "crb": CrbBench}
CONCURRENCY = 6
CHECK_PATIENCES = 8
"""How many times the patience one check may take in all."""


def checks_of(kind: BrokerKind, only: Sequence[str] = ()) -> list[Check]:
    """The checks of a kind, or those of them that one of the patterns matches."""
    found = [each for each in CHECKS.values() if kind in each.kinds]
    return [each for each in found if not only or any(fnmatch(each.id, pattern) for pattern in only)]


async def conform(
    bus: Bus,
    *,
    site: str,
    kind: BrokerKind,
    broker: str,
    options: Options | None = None,
    restart: Restart | None = None,
    only: Sequence[str] = (),
    patience_seconds: float = 30.0,
    concurrency: int = CONCURRENCY,
) -> Report:
    """Check one broker. What the checks make, they remove.

    Several checks go on at once, then those that need the broker for themselves, then those that share a restart.
    """
    chosen = checks_of(kind, only)
    together = [each for each in chosen if not each.alone and not each.restarts]
    alone = [each for each in chosen if each.alone]
    restarting = [each for each in chosen if each.restarts]
    findings: dict[str, Finding] = {}
    slots = asyncio.Semaphore(concurrency)

    with tempfile.TemporaryDirectory(prefix="calque-conform-") as directory:
        copies = CopyServer(Path(directory))
        await copies.start()
        gate = RestartGate(restart, parties=len(restarting))
        surroundings = Surroundings(options or Options(), copies, Path(directory), gate)

        async def one(each: Check) -> None:
            talk = Conversation(bus, site=site, kind=kind, broker=broker, patience_seconds=patience_seconds)
            findings[each.id] = await judge(each, BENCHES[kind](talk, surroundings))

        async def in_turn(each: Check) -> None:
            async with slots:
                await one(each)

        async def and_leave(each: Check) -> None:
            await one(each)
            await gate.leave()

        try:
            await asyncio.gather(*map(in_turn, together))
            for each in alone:
                await one(each)
            await asyncio.gather(*map(and_leave, restarting))
        finally:
            await copies.stop()
    return Report(site=site, kind=kind, broker=broker, findings=tuple(findings[each.id] for each in chosen))


async def judge(each: Check, bench: Bench) -> Finding:
    """Make one check, and remove what it made."""
    began = time.monotonic()
    verdict: Verdict = "passed"
    evidence: dict[str, str] = {}
    try:
        async with asyncio.timeout(bench.talk.patience_seconds * CHECK_PATIENCES):
            await each.act(bench)
    except NotApplicable as missing:
        verdict, evidence = "skipped", {"reason": str(missing)}
    except Unmet as unmet:
        verdict, evidence = "failed", _evidence(each, bench, unmet.came, sent=unmet.sent)
    except TimeoutError:
        verdict, evidence = "failed", _evidence(each, bench, "it took too long")
    except Exception as error:
        # The technology behind the broker refused the kit: as wrong as an answer of the broker itself.
        verdict, evidence = "failed", _evidence(each, bench, f"{type(error).__name__}: {error}")
    try:
        async with asyncio.timeout(bench.talk.patience_seconds * 2):
            await bench.tidy()
    except (Unmet, CalqueError, TimeoutError) as error:
        if verdict == "passed":
            verdict, evidence = "failed", _evidence(each, bench, f"what the check made could not be removed: {error}")
    seconds = round(time.monotonic() - began, 3)
    return Finding(id=each.id, verdict=verdict, sentence=each.sentence, spec=each.spec, seconds=seconds, **evidence)


def _evidence(each: Check, bench: Bench, problem: str, *, sent: str = "") -> dict[str, str]:
    return {
        "problem": problem,
        "sent": sent or bench.talk.sent,
        "came": bench.talk.came,
        "contract": f"{each.sentence} ({each.spec})",
    }
