"""What a run found, as a table for people and as JSON for programs."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["passed", "failed", "skipped"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of one check. A failed one has ``sent``, ``came`` and ``contract``; a skipped one a ``reason``."""

    id: str
    verdict: Verdict
    sentence: str
    spec: str
    seconds: float
    sent: str = ""
    came: str = ""
    problem: str = ""
    contract: str = ""
    reason: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run against one broker."""

    site: str
    kind: str
    broker: str
    findings: tuple[Finding, ...]

    def count(self, verdict: Verdict) -> int:
        """How many checks ended so."""
        return sum(finding.verdict == verdict for finding in self.findings)

    @property
    def conforms(self) -> bool:
        """Nothing failed, and something passed."""
        return self.count("failed") == 0 and self.count("passed") > 0


_WORDS: dict[Verdict, str] = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


def as_table(report: Report) -> str:
    """A line per check; below each failure what was sent, what came and what the contract says."""
    width = max((len(finding.id) for finding in report.findings), default=0)
    lines: list[str] = []
    for finding in report.findings:
        lines.append(f"{_WORDS[finding.verdict]:<8} {finding.id:<{width}}  {finding.sentence}")
        for label, text in (
            ("wrong", finding.problem),
            ("sent", finding.sent),
            ("came", finding.came),
            ("contract", finding.contract),
            ("because", finding.reason),
        ):
            if text:
                lines.append(f"         {label + ':':<10}{text}")
    verdict = "conforms" if report.conforms else "does not conform"
    lines.append(
        f"\n{report.kind} {report.broker} at {report.site} {verdict}: {report.count('passed')} passed, "
        f"{report.count('failed')} failed, {report.count('skipped')} skipped"
    )
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """One document."""
    document = {**msgspec.to_builtins(report), "conforms": report.conforms}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
