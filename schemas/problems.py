"""Problems: errors that travel, split by who must act."""

from __future__ import annotations

from enum import StrEnum

from schemas.base import Fact


class Actor(StrEnum):
    """Who can do something about a problem."""

    CALLER = "caller"
    ENVIRONMENT = "environment"
    BROKER = "broker"


class Problem(Fact, frozen=True, kw_only=True):
    """What went wrong: a stable ``code``, the cause, the field or part, and what to do.

    ``retry_after_seconds`` is set for problems of the environment that pass by themselves.
    """

    code: str
    message: str
    actor: Actor = Actor.CALLER
    field: str | None = None
    remedy: str | None = None
    retry_after_seconds: float | None = None

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later without anybody changing it."""
        return self.actor is Actor.ENVIRONMENT

    def sentence(self) -> str:
        """One line for a person: field, cause, what to do."""
        head = f"{self.field}: {self.message}" if self.field else self.message
        return f"{head}; {self.remedy}" if self.remedy else head


class CalqueError(Exception):
    """An error that carries a :class:`Problem`; everything that a user may see is one of these."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence())
        self.problem = problem


def invalid(field: str, message: str, remedy: str | None = None) -> Problem:
    """The request is malformed; the caller must change it."""
    return Problem(code="invalid", field=field, message=message, remedy=remedy)


def not_found(field: str, message: str, remedy: str | None = None) -> Problem:
    """What the request names does not exist."""
    return Problem(code="not_found", field=field, message=message, remedy=remedy)


def conflict(field: str, message: str, remedy: str | None = None) -> Problem:
    """The request does not fit the present state; the caller must choose otherwise or wait."""
    return Problem(code="conflict", field=field, message=message, remedy=remedy)


def forbidden(message: str, remedy: str | None = None) -> Problem:
    """The caller may not do this."""
    return Problem(code="forbidden", message=message, remedy=remedy)


def temporary(code: str, message: str, *, retry_after_seconds: float = 1.0, field: str | None = None) -> Problem:
    """The environment is not ready; the same request may succeed later."""
    return Problem(
        code=code,
        message=message,
        actor=Actor.ENVIRONMENT,
        field=field,
        retry_after_seconds=retry_after_seconds,
    )


def permanent(code: str, message: str, *, field: str | None = None, remedy: str | None = None) -> Problem:
    """A broker or the technology behind it refuses for good."""
    return Problem(code=code, message=message, actor=Actor.BROKER, field=field, remedy=remedy)
