"""From exceptions to problems: who must act, the broker's environment (temporary) or the broker's owner."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path

from schemas.problems import CalqueError, Problem, permanent, temporary

logger = logging.getLogger(__name__)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})

Explain = Callable[[BaseException], Problem | None]


def temporary_error(
    code: str, message: str, *, retry_after_seconds: float = 1.0, field: str | None = None
) -> CalqueError:
    """The environment is not ready; the same request may succeed later."""
    return CalqueError(temporary(code, message, retry_after_seconds=retry_after_seconds, field=field))


def permanent_error(code: str, message: str, *, field: str | None = None, remedy: str | None = None) -> CalqueError:
    """The broker or the technology behind it refuses for good."""
    return CalqueError(permanent(code, message, field=field, remedy=remedy))


def read_value(path: Path, *, field: str) -> str:
    """The one value in a file that the settings name. Raises a temporary problem: it may come later."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise temporary_error(
            "unavailable", f"{path}: {error.strerror}", field=field, retry_after_seconds=2.0
        ) from None


def unsupported(operation: str, *, broker: str) -> CalqueError:
    """The broker doesn't offer an operation of its kind."""
    return permanent_error("unsupported", f"{broker} doesn't offer {operation}", field="operation")


def moment_lost(copy: str, cause: str) -> CalqueError:
    """The prepared moment of a copy is gone; a new one would not be the moment that was asked for."""
    return permanent_error(
        "moment_lost",
        f"the prepared moment of copy {copy} is lost: {cause}",
        field="copy",
        remedy="save the image again",
    )


def problem_of(error: BaseException, *, explain: Explain, doing: str) -> Problem:
    """The problem that a failed handler reports.

    ``explain`` knows the errors of the broker's own technology. What nobody knows is logged with its traceback
    and travels without details, which could hold anything.
    """
    if isinstance(error, CalqueError):
        return error.problem
    if problem := explain(error):
        return problem
    if isinstance(error, TimeoutError):
        return temporary("timeout", f"{doing} took too long", retry_after_seconds=2.0)
    if isinstance(error, OSError) and error.errno in _FULL:
        return temporary("full", f"{doing}: {error.strerror}", retry_after_seconds=10.0)
    if isinstance(error, ConnectionError):
        return temporary("unavailable", f"{doing}: the connection was refused or lost", retry_after_seconds=2.0)
    logger.error("%s failed", doing, exc_info=error)
    return permanent("internal", f"{doing} failed inside the broker", remedy="see the broker's log")
