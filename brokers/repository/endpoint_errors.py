"""How errors leave the HTTPS endpoint: a problem as JSON, and the status that fits who must act."""

import errno
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from brokers.repository.errors import StorageFailed
from brokers.repository.tokens import TokenRefused
from schemas.problems import Actor, CalqueError, Problem, forbidden, permanent

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS = {
    "invalid": 400,
    "not_found": 404,
    "conflict": 409,
    "already_committed": 409,
    "incomplete": 409,
    "busy": 503,
    "storage": 507,
    "corrupt": 500,
}


def problem_response(problem: Problem, *, status: int | None = None) -> web.Response:
    headers = {}
    if problem.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, round(problem.retry_after_seconds)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    default = 503 if problem.actor is Actor.ENVIRONMENT else 500
    return web.Response(
        body=msgspec.json.encode(problem),
        status=status or _STATUS.get(problem.code, default),
        content_type="application/json",
        headers=headers,
    )


def storage_problem(error: OSError) -> CalqueError:
    """The file system refused: named by its own words, without a path."""
    name = errno.errorcode.get(error.errno or 0, "")
    return StorageFailed(f"the repository's file system refused: {error.strerror or error} {name}".rstrip())


def token_problem(error: TokenRefused) -> web.Response:
    return problem_response(forbidden(str(error)), status=403 if error.known else 401)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into a problem. What came after the head of the answer was sent is the handler's matter."""
    try:
        return await handler(request)
    except TokenRefused as error:
        return token_problem(error)
    except CalqueError as error:
        return problem_response(error.problem)
    except web.HTTPException:
        raise
    except OSError as error:
        logger.warning("%s %s: %s", request.method, request.path, error)
        return problem_response(storage_problem(error).problem)
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return problem_response(permanent("internal", "the repository failed; its log says why"))
