"""The HTTP interface: routes, and how values and errors of the application look on the wire."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from aiohttp import BodyPartReader, web

from . import intake
from .documents import DocumentMissingError, DocumentsUnavailableError
from .gate import NotQuiescedError, StoppingError
from .ideas import Idea
from .intake import InvalidError
from .page import PAGE_HEADERS, PAGE_SIZE, rendered
from .service import ConflictError, Ideas
from .store import UnavailableError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SMALL_BODY = 64 * 1024
_IDEA_BODY = 12 * 1024 * 1024
_BATCH_BODY = 32 * 1024 * 1024
_HEALTH_SECONDS = 4.0
_QUIESCE_SECONDS = 30.0


def application(ideas: Ideas, *, title: str) -> web.Application:
    """The web application over ``ideas``; ``title`` heads the page."""
    api = Api(ideas, title=title)
    app = web.Application(middlewares=[_answer_errors], client_max_size=_BATCH_BODY)
    app.add_routes(
        [
            web.get("/", api.page),
            web.get("/healthz", api.health),
            web.get("/api/ideas", api.list),
            web.post("/api/ideas", api.create),
            web.post("/api/ideas:batch", api.create_batch),
            web.get("/api/ideas/{id}", api.show),
            web.delete("/api/ideas/{id}", api.delete),
            web.get("/api/ideas/{id}/document", api.document),
            web.get("/api/ideas/{id}/thumbnail", api.thumbnail),
            web.post("/api/ideas/{id}/votes", api.vote),
            web.get("/api/stats", api.stats),
            web.post("/hooks/quiesce", api.quiesce),
            web.post("/hooks/thaw", api.thaw),
            web.get("/hooks/state", api.hook_state),
        ]
    )
    return app


class Api:
    """The handlers."""

    def __init__(self, ideas: Ideas, *, title: str) -> None:
        self._ideas = ideas
        self._title = title

    async def page(self, request: web.Request) -> web.Response:
        number = intake.whole_number(request.query.get("page", "1"), field="page", low=1, high=1_000_000)
        found = await self._ideas.store.most_voted(offset=(number - 1) * PAGE_SIZE, limit=PAGE_SIZE)
        stats = await self._ideas.store.stats()
        html = rendered(
            title=self._title,
            ideas=found,
            stats=stats,
            number=number,
            quiesced=self._ideas.gate.state().closed,
        )
        return web.Response(text=html, content_type="text/html", headers=PAGE_HEADERS)

    async def health(self, _: web.Request) -> web.Response:
        """200 when PostgreSQL and the bucket answer. A quiesced application is healthy."""
        checks = {"postgres": self._ideas.store.check(), "documents": self._ideas.documents.check()}
        answers = await asyncio.gather(
            *(asyncio.wait_for(check, _HEALTH_SECONDS) for check in checks.values()), return_exceptions=True
        )
        found = {}
        for name, answer in zip(checks, answers, strict=True):
            if isinstance(answer, TimeoutError):
                found[name] = "no answer in time"
            elif isinstance(answer, BaseException):
                log.warning("health: %s: %s", name, answer)
                found[name] = "unavailable"
            else:
                found[name] = "ok"
        healthy = all(answer == "ok" for answer in found.values())
        body = {"status": "ok" if healthy else "unavailable", "checks": found}
        return web.json_response(body, status=200 if healthy else 503)

    async def list(self, request: web.Request) -> web.Response:
        query = request.query
        offset = intake.whole_number(query.get("offset", "0"), field="offset", low=0, high=2**31)
        limit = intake.whole_number(query.get("limit", "50"), field="limit", low=1, high=intake.MAX_PAGE)
        found, total = await self._ideas.store.page(offset=offset, limit=limit, writer=query.get("writer"))
        return web.json_response(
            {"ideas": [asdict(idea) for idea in found], "offset": offset, "limit": limit, "total": total}
        )

    async def create(self, request: web.Request) -> web.Response:
        """201 with the idea; 200 when this writer and seq were stored before, with the same content."""
        if request.content_type == "multipart/form-data":
            fields = await _form_fields(request)
        else:
            fields = await _json_fields(request, limit=_IDEA_BODY)
        stored, repeated = await self._ideas.add([intake.new_idea(fields)])
        location = {"Location": f"/api/ideas/{stored[0].id}"}
        return web.json_response(asdict(stored[0]), status=200 if repeated else 201, headers=location)

    async def create_batch(self, request: web.Request) -> web.Response:
        new = intake.new_ideas(await _json_fields(request, limit=_BATCH_BODY))
        stored, repeated = await self._ideas.add(new)
        body = {"ids": [idea.id for idea in stored], "created": len(stored) - repeated, "repeated": repeated}
        return web.json_response(body, status=201)

    async def show(self, request: web.Request) -> web.Response:
        idea = await self._ideas.store.get(_id(request))
        return web.json_response(asdict(_present(idea)))

    async def document(self, request: web.Request) -> web.Response:
        found = await self._ideas.document(_id(request))
        if found is None:
            raise web.HTTPNotFound(text="there is no such idea")
        idea, content = found
        name = quote(idea.title.rpartition("/")[2], safe="")
        return web.Response(
            body=content,
            headers={
                # Whatever was uploaded, a browser neither guesses its type nor runs it.
                "Content-Type": "text/plain; charset=utf-8" if _is_text(content) else "application/octet-stream",
                "Content-Disposition": f"inline; filename*=UTF-8''{name}",
                "Content-Security-Policy": "sandbox; default-src 'none'",
                "X-Content-Type-Options": "nosniff",
                "ETag": f'"{idea.doc_digest}"',
            },
        )

    async def thumbnail(self, request: web.Request) -> web.Response:
        picture = await self._ideas.thumbnail(_id(request))
        if picture is None:
            raise web.HTTPNotFound(text="there is no such idea")
        headers = {"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=picture, content_type="image/svg+xml", headers=headers)

    async def vote(self, request: web.Request) -> web.Response:
        fields = await _json_fields(request, limit=_SMALL_BODY, optional=True)
        count = intake.whole_number(fields.get("count", 1), field="count", low=1, high=intake.MAX_VOTES_AT_ONCE)
        votes = await self._ideas.vote(_id(request), count=count)
        if votes is None:
            raise web.HTTPNotFound(text="there is no such idea")
        return web.json_response({"votes": votes})

    async def delete(self, request: web.Request) -> web.Response:
        if not await self._ideas.remove(_id(request)):
            raise web.HTTPNotFound(text="there is no such idea")
        return web.Response(status=204)

    async def stats(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(await self._ideas.store.stats()))

    async def quiesce(self, request: web.Request) -> web.Response:
        """200 when no write is in flight any more; 409 when the gate opened before that."""
        fields = await _json_fields(request, limit=_SMALL_BODY, optional=True)
        deadline = intake.seconds(fields.get("deadline_seconds", _QUIESCE_SECONDS), field="deadline_seconds")
        try:
            await self._ideas.gate.quiesce(deadline)
        except NotQuiescedError:
            raise web.HTTPConflict(text="writes in flight did not finish before the gate opened again") from None
        log.info("quiesced, for at most %.1f s", deadline)
        return self._hook_answer()

    async def thaw(self, _: web.Request) -> web.Response:
        self._ideas.gate.thaw()
        log.info("thawed")
        return self._hook_answer()

    async def hook_state(self, _: web.Request) -> web.Response:
        return self._hook_answer()

    def _hook_answer(self) -> web.Response:
        return web.json_response(asdict(self._ideas.gate.state()))


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into JSON that says what to do, and write the request's line to the log."""
    started = asyncio.get_running_loop().time()
    response = await _answer(request, handler)
    if request.path != "/healthz" or response.status != 200:
        milliseconds = (asyncio.get_running_loop().time() - started) * 1000
        log.info("%s %s %d %.1f ms", request.method, request.path, response.status, milliseconds)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidError as error:
        return _error(400, str(error), field=error.field)
    except ConflictError as error:
        return _error(409, str(error), field="seq")
    except StoppingError:
        return _error(503, "the application is stopping; the write had no effect, send it again", retry_after=1)
    except (UnavailableError, DocumentsUnavailableError) as error:
        log.warning("%s %s: %s", request.method, request.path, error)
        return _error(503, "the data services do not answer; try again", retry_after=1)
    except DocumentMissingError as error:
        log.error("the document %s is missing", error)
        return _error(500, "the document of this idea is missing")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allowed = error.headers.get("Allow")
        text = error.text or error.reason
        if error.status == 404 and text.startswith("404"):
            text = "there is nothing at this address"
        return _error(error.status, text, headers={"Allow": allowed} if allowed else None)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(500, "an error inside the application; its log says more")


def _error(
    status: int,
    message: str,
    *,
    field: str | None = None,
    retry_after: int | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    body: dict[str, Any] = {"error": message}
    if field is not None:
        body["field"] = field
    more = dict(headers or {})
    if retry_after is not None:
        more["Retry-After"] = str(retry_after)
    return web.json_response(body, status=status, headers=more)


def _id(request: web.Request) -> str:
    try:
        return str(uuid.UUID(request.match_info["id"]))
    except ValueError:
        raise web.HTTPNotFound(text="there is no such idea") from None


def _present(idea: Idea | None) -> Idea:
    if idea is None:
        raise web.HTTPNotFound(text="there is no such idea")
    return idea


async def _json_fields(request: web.Request, *, limit: int, optional: bool = False) -> dict[str, Any]:
    """The JSON object that the request carries; ``{}`` for an empty body where that is allowed."""
    if optional and not request.can_read_body:
        return {}
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(
            text=f"the content type {request.content_type} is not understood; send application/json"
        )
    body = bytearray()
    async for piece in request.content.iter_chunked(256 * 1024):
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    if len(body) > _SMALL_BODY * 4:
        # Big batches are parsed beside the event loop, so that other requests go on.
        return await asyncio.to_thread(intake.json_object, bytes(body))
    return intake.json_object(bytes(body))


async def _form_fields(request: web.Request) -> dict[str, Any]:
    """The fields of a multipart form; the part ``document`` stays bytes, all others are text."""
    fields: dict[str, Any] = {}
    size = 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name:
                raise InvalidError(field="body", problem="every part of the form must have a name")
            content = bytearray()
            while piece := await part.read_chunk(256 * 1024):
                content += piece
                size += len(piece)
                if size > _IDEA_BODY:
                    raise _too_large(_IDEA_BODY)
            if part.name in fields:
                raise InvalidError(field=part.name, problem="is there twice")
            fields[part.name] = bytes(content) if part.name == "document" else _decoded(part.name, content)
    except (ValueError, LookupError, EOFError) as error:
        raise InvalidError(field="body", problem=f"is no multipart form: {error}") from None
    return fields


def _decoded(name: str, content: bytearray) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidError(field=name, problem="must be UTF-8 text") from None


def _too_large(limit: int) -> web.HTTPException:
    return web.HTTPRequestEntityTooLarge(
        max_size=limit, actual_size=limit + 1, text=f"the body is larger than {limit} bytes"
    )


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False
