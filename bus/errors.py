"""How failures of the bus read to whoever uses it: all of them are problems of the environment."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.problems import Actor, CalqueError, Problem, invalid, temporary


def unreachable(servers: Sequence[str], *, seconds: float, cause: str) -> CalqueError:
    """No server answered before the deadline."""
    return CalqueError(
        Problem(
            code="unreachable",
            message=f"no NATS server answered within {seconds:g} s at {', '.join(servers)} ({cause})",
            actor=Actor.ENVIRONMENT,
            field="servers",
            remedy="start the stack with `calque up`, or check the address and that nothing blocks the port",
            retry_after_seconds=1.0,
        )
    )


def refused(servers: Sequence[str], *, name: str) -> CalqueError:
    """A server answered, and did not accept the credentials."""
    return CalqueError(
        Problem(
            code="forbidden",
            message=f"the NATS server at {', '.join(servers)} does not accept the credentials of {name!r}",
            field="nkey_seed_file",
            remedy="use the seed file that was made for this server",
        )
    )


def unavailable(subject: str, cause: str) -> CalqueError:
    """Nobody answers on ``subject`` now."""
    return CalqueError(temporary("unavailable", f"nobody answers on {subject} ({cause})"))


def timed_out(subject: str, *, seconds: float) -> CalqueError:
    """No answer came in time; whether the request had an effect is not known."""
    return CalqueError(temporary("timeout", f"no answer on {subject} within {seconds:g} s"))


def too_large(subject: str, *, size: int, limit: int) -> CalqueError:
    """A message is bigger than ``limit``; sizes in bytes."""
    return CalqueError(
        invalid("message", f"{size} bytes for {subject} exceed the limit of {limit}", "send bulk data by digest")
    )


def forbidden(subject: str) -> CalqueError:
    """The server does not let this connection publish there."""
    return CalqueError(
        Problem(
            code="forbidden",
            message=f"the credentials do not allow to publish to {subject}",
            actor=Actor.CALLER,
            remedy="ask an operator for a principal that may: see 'calque principal add --help'",
        )
    )
