"""What is not durable: heartbeats, progress and log lines. Whoever listens hears them; nobody waits for them."""

from __future__ import annotations

from typing import ClassVar

from schemas.base import Fact
from schemas.problems import Problem
from schemas.registry import message


class SiteCondition(Fact, frozen=True, kw_only=True):
    """How a site is, as its agent sees it. ``position``: the sequence of the last event in its outbox; ``unsent``: of
    how many of its events the hub has not confirmed yet that it has them. Sizes in bytes, ``None`` where unknown."""

    position: int
    unsent: int | None = None
    outbox_bytes: int = 0
    outbox_limit_bytes: int | None = None
    dead_letters: int = 0
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None
    measured_at: str = ""


@message("signal.beat")
class Beat(Fact, frozen=True, kw_only=True):
    """A site's or the hub's heartbeat, every ``interval_seconds``. ``sequence`` grows within one run of the sender;
    ``condition`` is a site's own."""

    TYPE: ClassVar[str]
    sender: str
    run: str
    sequence: int
    interval_seconds: float
    version: str = ""
    condition: SiteCondition | None = None


@message("signal.progress")
class Progress(Fact, frozen=True, kw_only=True):
    """How far one step of an operation is; sizes in bytes, ``total`` is ``None`` while unknown."""

    TYPE: ClassVar[str]
    operation: str
    step: str
    part: str
    done: int
    total: int | None = None
    message: str = ""


@message("signal.log")
class LogLine(Fact, frozen=True, kw_only=True):
    """One line of an app service's output."""

    TYPE: ClassVar[str]
    instance: str
    service: str
    line: str
    stream: str = "stdout"


@message("problem")
class ProblemReply(Fact, frozen=True, kw_only=True):
    """The reply to a query or request that could not be answered."""

    TYPE: ClassVar[str]
    problem: Problem
