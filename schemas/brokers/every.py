"""What requests to brokers of every kind have in common, and those that every broker answers."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from schemas.base import Demand, Fact
from schemas.problems import Problem
from schemas.registry import message

SERVICE_VERSION = "0.2.0"


class Request(Demand, frozen=True, kw_only=True):
    """The base of all requests."""

    TYPE: ClassVar[str]


class Change(Request, frozen=True, kw_only=True):
    """A request that changes something; idempotent by ``id``. ``operation`` is where its progress is told."""

    id: str
    operation: str = ""


class Reply(Fact, frozen=True, kw_only=True):
    """The base of all replies."""

    TYPE: ClassVar[str]


class BytesDone(Fact, frozen=True, kw_only=True):
    """How far a long operation is, in bytes; ``total`` is ``None`` while unknown."""

    done: int
    total: int | None = None
    message: str = ""


@message("reply.outcome")
class Outcome(Reply, frozen=True, kw_only=True):
    """The state of a long operation."""

    id: str
    state: Literal["running", "succeeded", "failed", "cancelled"]
    progress: BytesDone | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    problem: Problem | None = None


@message("request.any.status")
class StatusRequest(Request, frozen=True, kw_only=True):
    """How is the operation ``id``? An unknown id is the problem ``not_found``."""

    id: str


@message("request.any.cancel")
class CancelRequest(Request, frozen=True, kw_only=True):
    """Stop the operation ``id`` and remove what it did. An unknown id is remembered as cancelled. Answered when that is
    done, or as ``running`` after a few seconds: then ``status`` tells the end."""

    id: str


@message("reply.done")
class Done(Reply, frozen=True, kw_only=True):
    """The change is made (now, or when it was asked for before)."""


@message("request.any.info")
class InfoRequest(Request, frozen=True, kw_only=True):
    """What are you?"""


@message("reply.any.health")
class Health(Reply, frozen=True, kw_only=True):
    """What the broker's own check says."""

    healthy: bool
    message: str = ""
