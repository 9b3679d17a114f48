"""What the SDK raises: one class per answer that a program may want to treat differently."""

from __future__ import annotations

from schemas.problems import Actor, CalqueError, Problem
from schemas.queries import OperationView


class ClientError(CalqueError):
    """The base. ``correlation`` is the id of the command or operation that it is about, if one is."""

    def __init__(self, problem: Problem, *, correlation: str | None = None) -> None:
        super().__init__(problem)
        self.correlation = correlation


class InvalidError(ClientError):
    """The request is malformed."""


class NotFoundError(ClientError):
    """What the request names does not exist."""


class ForbiddenError(ClientError):
    """The principal may not do this."""


class ConflictError(ClientError):
    """The request does not fit the present state, or a name means several things."""


class RefusedError(ClientError):
    """The hub, a site or a broker refuses for another reason; the problem's code says which."""


class HubUnreachableError(ClientError):
    """No hub answered in time. Whether a command had an effect, its id tells later."""


class WaitTimedOutError(ClientError):
    """The operation had not ended in time; it goes on."""


class OperationFailedError(ClientError):
    """The operation ended as failed or cancelled; ``view`` is its last state."""

    def __init__(self, view: OperationView) -> None:
        cause = view.problem or Problem(code=view.state, message=f"the operation was {view.state}")
        super().__init__(cause, correlation=view.id)
        self.view = view


_BY_CODE: dict[str, type[ClientError]] = {
    "invalid": InvalidError,
    "not_found": NotFoundError,
    "forbidden": ForbiddenError,
    "conflict": ConflictError,
    "locked": ConflictError,
    "unreachable": HubUnreachableError,
    "unavailable": HubUnreachableError,
    "timeout": HubUnreachableError,
}


def client_error(problem: Problem, *, correlation: str | None = None) -> ClientError:
    """The exception for ``problem``."""
    return _BY_CODE.get(problem.code, RefusedError)(problem, correlation=correlation)


def unreachable(message: str, *, correlation: str | None = None, remedy: str | None = None) -> HubUnreachableError:
    """No hub answers."""
    problem = Problem(
        code="unreachable",
        message=message,
        actor=Actor.ENVIRONMENT,
        remedy=remedy or "see that the stack runs ('calque up'), then try again",
        retry_after_seconds=1.0,
    )
    return HubUnreachableError(problem, correlation=correlation)
