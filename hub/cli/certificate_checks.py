"""Certificates of the stack that run out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from hub.cli.findings import Finding, ok, problem, skipped
from hub.stack.layout import HomeLayout

SOON = timedelta(days=30)


def check_certificates(home: Path, *, now: datetime | None = None) -> list[Finding]:
    """Whether every certificate of the home holds for a while yet."""
    keys = HomeLayout(home).keys
    moment = now or datetime.now(UTC)
    found = []
    files = sorted(keys.rglob("*.pem"))
    if not files:
        return [skipped("certificates", "there are none yet")]
    first = datetime.max.replace(tzinfo=UTC)
    for file in files:
        try:
            ends = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            found.append(problem("certificates", str(file), f"it can't be read: {error}", _anew(file)))
            continue
        first = min(first, ends)
        if ends <= moment:
            found.append(problem("certificates", str(file), "it has expired", _anew(file), since=ends.isoformat()))
        elif ends - moment < SOON:
            days = (ends - moment).days
            found.append(problem("certificates", str(file), f"it expires in {days} days", _anew(file)))
    return found or [ok("certificates", f"{len(files)} hold until {first.date()} and longer")]


def _anew(file: Path) -> str:
    which = "every *.pem beside and below it" if file.name == "ca.pem" else "that file"
    return f"stop the stack with 'calque down', remove {which}, and 'calque up' makes it anew"
