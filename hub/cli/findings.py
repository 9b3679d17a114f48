"""What ``calque doctor`` finds: each with what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one look. ``subject`` is the part it is about, ``remedy`` what to do about a problem, ``since``
    when it began (RFC 3339) if that is known. A ``note`` is worth knowing, and nothing is wrong.

    ``details`` are lines that show more, such as the end of a log.
    """

    check: str
    state: State
    message: str
    subject: str = ""
    remedy: str = ""
    since: str = ""
    details: tuple[str, ...] = ()


CHECKS: dict[str, str] = {
    "context": "a hub is named, and its context can be read",
    "home": "this version can run what is in the home",
    "stack": "nothing was left behind by a stack that was killed: lock, record, parts",
    "parts": "every part of the stack runs, and none is started again and again",
    "ports": "no port of the stack is held by another program",
    "disk": "there is room on the disk of the home",
    "certificates": "no certificate of the home runs out within 30 days",
    "hub": "the hub answers",
    "sites": "every site reports",
    "brokers": "every broker that was ever there answers, and each site has what it needs to run an app",
    "versions": "hub and sites have the version of this program",
    "events": "every stored event is of a type that the hub knows",
    "clocks": "the clocks of hub and sites agree",
    "cleanup": "no operation waits for its clean-up",
    "stuck": "no operation has been under way for more than an hour",
    "consumers": "whoever reads a stream moves on, and the hub has taken in all that is recorded",
    "snapshots": "the hub has a snapshot to start from, and can write new ones",
    "disks": "the sites have room on their disks",
    "limits": "what brokers can't do as they are set up (no fault)",
    "letters": "there are no dead letters: messages that could not be handled",
    "room": "no stream that refuses rather than loses is nearly full",
    "strays": "no events are set apart: forged, foreign, unreadable",
}
"""Every check, in the order in which they are made, and what it makes sure of."""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check=check, state="ok", message=message)


def skipped(check: str, message: str) -> Finding:
    """It could not be looked at; the message says why."""
    return Finding(check=check, state="skipped", message=message)


def note(check: str, subject: str, message: str, remedy: str = "") -> Finding:
    """Worth knowing; nothing is wrong."""
    return Finding(check=check, state="note", subject=subject, message=message, remedy=remedy)


def problem(
    check: str, subject: str, message: str, remedy: str, *, since: str = "", details: tuple[str, ...] = ()
) -> Finding:
    """Something is wrong."""
    return Finding(
        check=check, state="problem", subject=subject, message=message, remedy=remedy, since=since, details=details
    )
