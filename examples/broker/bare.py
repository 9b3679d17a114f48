"""A data service broker without any library of ours: nats-py, JSON, and the published contract.

    python bare.py nats://127.0.0.1:4222 SITE NAME DIRECTORY

It offers folders, and makes no copies. Each operation of its kind is answered; those that it has not answer the
problem `unsupported`. What it remembers lies in DIRECTORY, so a restart loses nothing. `docs/writing-a-broker.md`
says what the rules are; the same program in another language has the same shape.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import signal
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

Json = dict[str, Any]

# operation: (request type, reply type, long, required fields, optional fields)
CHANGE: dict[str, type] = {"id": str}
OPERATIONS: dict[str, tuple[str, str, bool, dict[str, type], dict[str, type]]] = {
    "info": ("request.any.info", "reply.dsb.info", False, {}, {}),
    "health": ("request.dsb.health", "reply.any.health", False, {}, {"service_id": str}),
    "describe": ("request.dsb.describe", "reply.dsb.describe", False, {}, {"service_id": str}),
    "status": ("request.any.status", "reply.outcome", False, CHANGE, {}),
    "cancel": ("request.any.cancel", "reply.outcome", False, CHANGE, {}),
    "provision": (
        *("request.dsb.provision", "reply.outcome", True),
        {**CHANGE, "service_id": str, "type": str, "plan": str},
        {"parameters": dict, "labels": dict, "restore": dict, "copy_format": str, "operation": str},
    ),
    "deprovision": (
        "request.dsb.deprovision",
        "reply.outcome",
        True,
        {**CHANGE, "service_id": str},
        {"operation": str},
    ),
    "bind": (
        *("request.dsb.bind", "reply.dsb.bind", False),
        {**CHANGE, "service_id": str, "binding_id": str, "secret": dict},
        {"operation": str},
    ),
    "unbind": (
        *("request.dsb.unbind", "reply.done", False),
        {**CHANGE, "service_id": str, "binding_id": str},
        {"operation": str},
    ),
    "attach": ("request.dsb.attach", "reply.outcome", True, CHANGE, {}),
    "stage_copy": ("request.dsb.stage_copy", "reply.outcome", True, CHANGE, {}),
    "prepare_copy": ("request.dsb.prepare_copy", "reply.dsb.prepare_copy", False, CHANGE, {}),
    "copy": ("request.dsb.copy", "reply.outcome", True, CHANGE, {}),
    "discard_copy": ("request.dsb.discard_copy", "reply.done", False, {**CHANGE, "copy": str}, {"operation": str}),
}
CODES = {"caller": "422", "environment": "503", "broker": "500"}
CALLER_CODES = {"invalid": "400", "forbidden": "403", "not_found": "404", "conflict": "409"}


class Refused(Exception):
    """A problem as it travels."""

    def __init__(self, code: str, field: str, message: str, actor: str = "caller") -> None:
        super().__init__(message)
        self.problem = {"code": code, "field": field, "message": message[:300], "actor": actor}


class Folders:
    """The technology, and what is remembered of it. No method waits, so none can be interrupted by another."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.data, self.outcomes = directory / "data", directory / "outcomes"
        for made in (self.data, self.outcomes):
            made.mkdir(parents=True, exist_ok=True)

    def info(self, _: Json) -> Json:
        return {
            "name": self.name,
            "version": "1.0.0",
            "types": ["other"],
            "attributes": ["path"],
            "plans": [{"name": "small"}],
            "secret_attributes": [],
            "protocols": [],
            "copy_formats": [],
        }

    def health(self, request: Json) -> Json:
        service = request.get("service_id")
        return {"healthy": service is None or self._mark(service).exists()}

    def describe(self, request: Json) -> Json:
        marks = [json.loads(file.read_text()) for file in self.data.glob("*.json")]
        wanted = request.get("service_id")
        return {"resources": [mark for mark in marks if wanted in (None, mark["id"])]}

    def provision(self, request: Json) -> Json:
        for field, known in (("type", "other"), ("plan", "small")):
            if request[field] != known:
                raise Refused("invalid", field, f"{request[field]!r} is not offered, only {known}")
        if request.get("parameters"):
            raise Refused("invalid", "parameters", f"{', '.join(request['parameters'])}: there are none")
        if request.get("restore"):
            raise Refused("invalid", "copy_format", "nothing can be restored here")
        service, mark = request["service_id"], self._mark(request["service_id"])
        folder = mark.with_suffix("")
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            labels = {**request.get("labels", {}), "service_id": service}
            write(mark, {"id": service, "kind": "folder", "name": folder.name, "labels": labels})
        return {"resource": {"path": str(folder)}}

    def deprovision(self, request: Json) -> Json:
        mark = self._mark(request["service_id"])
        mark.unlink(missing_ok=True)
        shutil.rmtree(mark.with_suffix(""), ignore_errors=True)
        return {}

    def bind(self, request: Json) -> Json:
        mark = self._mark(request["service_id"])
        if not mark.exists():
            raise Refused("not_found", "service_id", "there is no such data service")
        return {"attributes": {"path": str(mark.with_suffix(""))}, "secrets": {}}

    def unbind(self, _: Json) -> Json:
        return {}

    def discard_copy(self, _: Json) -> Json:
        return {}

    def status(self, request: Json) -> Json:
        known = self.known(request["id"])
        if known is None:
            raise Refused("not_found", "id", "no such operation is known here")
        return known[1]

    def cancel(self, request: Json) -> Json:
        known = self.known(request["id"])
        return known[1] if known else self.keep(request["id"], "", {"state": "cancelled"})

    # outcomes by the digest of the id, which may hold slashes

    def known(self, id: str) -> tuple[str, Json] | None:
        file = self.outcomes / f"{digest(id)}.json"
        if not file.exists():
            return None
        kept = json.loads(file.read_text())
        return kept["operation"], kept["outcome"]

    def keep(self, id: str, operation: str, outcome: Json) -> Json:
        outcome = {"id": id, **outcome}
        write(self.outcomes / f"{digest(id)}.json", {"operation": operation, "outcome": outcome})
        return outcome

    def _mark(self, service: str) -> Path:
        return self.data / f"{digest(service)}.json"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write(file: Path, document: Json) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(document))
    new.replace(file)


def read(operation: str, payload: bytes) -> tuple[str, Json]:
    """The envelope's id and the request in it."""
    kind, _, _, required, optional = OPERATIONS[operation]
    try:
        envelope = json.loads(payload)
    except (ValueError, RecursionError):
        raise Refused("invalid", "message", "this is not JSON") from None
    if not isinstance(envelope, dict) or not {"id", "type", "data"} <= envelope.keys():
        raise Refused("invalid", "message", "this is no CloudEvents envelope")
    if envelope.get("specversion") != "1.0":
        raise Refused("invalid", "specversion", "send CloudEvents 1.0")
    if envelope["type"] != f"calque.{kind}.v1":
        raise Refused("invalid", "type", f"send calque.{kind}.v1")
    data, fields = envelope["data"], {**required, **optional}
    if not isinstance(data, dict):
        raise Refused("invalid", "data", "it is not an object")
    for field in required.keys() - data.keys():
        raise Refused("invalid", field, "it is missing")
    for field, value in data.items():
        if operation in ("stage_copy", "prepare_copy", "copy"):
            break  # not offered, whatever stands in it
        if field not in fields:
            raise Refused("invalid", str(field), "there is no such field")
        if not isinstance(value, fields[field]):
            raise Refused("invalid", field, f"it is not of the type {fields[field].__name__}")
    return envelope["id"], data


def answer(folders: Folders, operation: str, request: Json) -> Json:
    """The reply's data."""
    method: Callable[[Json], Json] | None = getattr(folders, operation, None)
    if method is None:
        raise Refused("unsupported", "operation", f"{operation} is not offered", actor="broker")
    known = folders.known(request["id"]) if "id" in request and operation not in ("status", "cancel") else None
    if known and known[0] not in ("", operation):
        raise Refused("conflict", "id", f"it is the id of a {known[0]}")
    if not OPERATIONS[operation][2]:
        return method(request)
    if known:
        return known[1]
    try:
        return folders.keep(request["id"], operation, {"state": "succeeded", "result": method(request)})
    except Refused as refused:
        return folders.keep(request["id"], operation, {"state": "failed", "problem": refused.problem})


async def serve(client: Client, site: str, name: str, folders: Folders) -> None:
    service, instance, prefix = f"folders-{name}", uuid.uuid4().hex, f"calque.req.{site}.dsb.{name}"
    counts = dict.fromkeys(OPERATIONS, 0)
    identity = {
        "name": service,
        "id": instance,
        "version": "1.0.0",
        "metadata": {"calque.kind": "dsb", "calque.name": name, "calque.site": site},
    }

    def endpoints() -> list[Json]:
        return [
            {
                "name": operation,
                "subject": f"{prefix}.{operation}",
                "num_requests": counts[operation],
                "metadata": {
                    "calque.request": f"urn:calque:schema:{request}.v1",
                    "calque.reply": f"urn:calque:schema:{reply}.v1",
                },
            }
            for operation, (request, reply, *_) in OPERATIONS.items()
        ]

    async def discovered(message: Msg) -> None:
        verb = message.subject.split(".")[1].lower()
        said: Json = {"type": f"io.nats.micro.v1.{verb}_response", **identity}
        await message.respond(json.dumps(said if verb == "ping" else {**said, "endpoints": endpoints()}).encode())

    async def asked(message: Msg) -> None:
        operation, cause, headers = message.subject.rpartition(".")[2], None, {}
        counts[operation] += 1
        reply = OPERATIONS[operation][1]
        try:
            cause, request = read(operation, message.data)
            data = answer(folders, operation, request)
        except Refused as refused:
            problem = refused.problem
            reply, data = "problem", {"problem": problem}
            headers["Nats-Service-Error"] = " ".join(problem["message"].split())
            headers["Nats-Service-Error-Code"] = CALLER_CODES.get(problem["code"], CODES[problem["actor"]])
        envelope = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": service,
            "type": f"calque.{reply}.v1",
            "time": datetime.now(UTC).isoformat(),
            "dataschema": f"urn:calque:schema:{reply}.v1",
            "datacontenttype": "application/json",
            "data": data,
            **({"causationid": cause} if cause else {}),
        }
        headers["content-type"] = "application/cloudevents+json"
        await client.publish(message.reply, json.dumps(envelope).encode(), headers=headers)

    for operation in OPERATIONS:
        await client.subscribe(f"{prefix}.{operation}", queue="q", cb=asked)
    for verb in ("PING", "INFO", "STATS"):
        for place in ("", f".{service}", f".{service}.{instance}"):
            await client.subscribe(f"$SRV.{verb}{place}", cb=discovered)
    await client.flush()


async def main() -> None:
    url, site, name, directory = sys.argv[1:]
    client = await nats.connect(url, max_reconnect_attempts=-1)
    await serve(client, site, name, Folders(name, Path(directory)))
    print("ready", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await client.drain()


if __name__ == "__main__":
    asyncio.run(main())
