"""The sample application as a process of its own, and what surrounds it: a database and a bucket."""

import asyncio
import base64
import io
import json
import os
import random
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import aiohttp
import boto3
import psycopg

from hub.demo.reading import Access
from hub.stack.ports import LOOPBACK, is_free
from tests.patience import patience
from tests.servers import RunningPostgres, RunningS3

EXAMPLE = Path(__file__).parents[3] / "examples" / "hackathon"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A database and a bucket for one application, reached as :class:`Access` says."""

    access: Access
    port: int
    s3: Any

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PORT": str(self.port),
            "TITLE": "Ideas & <more>",
            "IDEAS_URI": self.access.postgres_uri,
            "DOCS_ENDPOINT": self.access.s3_endpoint,
            "DOCS_BUCKET": self.access.s3_bucket,
            "DOCS_ACCESS_KEY": self.access.s3_access_key,
            "DOCS_SECRET_KEY": self.access.s3_secret_key,
            **({"THUMBS_PATH": self.access.thumbs_path} if self.access.thumbs_path else {}),
        }

    def stored_keys(self) -> set[str]:
        """The keys of all objects in the bucket."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.access.s3_bucket)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.access.postgres_uri, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def free_port() -> int:
    """A port nobody listens on, below those that the kernel gives to outgoing connections."""
    return next(port for port in iter(lambda: random.randint(22_000, 31_999), None) if is_free(port))


@cache
def _administrator(s3: RunningS3) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=s3.server.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name=s3.server.region,
    )


def postgres_uri(postgres: RunningPostgres, database: str) -> str:
    server = postgres.server
    return f"postgresql://{server.user}:{quote(postgres.password)}@{server.host}:{server.port}/{database}"


def create_database(postgres: RunningPostgres, name: str) -> None:
    with psycopg.connect(postgres_uri(postgres, "postgres"), autocommit=True) as connection:
        # Copying the template's files is the quicker strategy for an empty database.
        connection.execute(f'CREATE DATABASE "{name}" STRATEGY file_copy'.encode())


def place(postgres: RunningPostgres, s3: RunningS3, *, create: bool = True) -> Place:
    """A new database and bucket; with ``create`` false the database is named but not made."""
    name = f"p{uuid.uuid4().hex[:12]}"
    client = _administrator(s3)
    if create:
        create_database(postgres, name)
    client.create_bucket(Bucket=name)
    port = free_port()
    access = Access(
        url=f"http://{LOOPBACK}:{port}",
        postgres_uri=postgres_uri(postgres, name),
        s3_endpoint=s3.server.endpoint,
        s3_bucket=name,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
    )
    return Place(access=access, port=port, s3=client)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A running application."""

    place: Place
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    log: Path

    @property
    def access(self) -> Access:
        return self.place.access

    async def get(self, path: str) -> Any:
        async with self.http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        async with self.http.post(path, data=data, headers=headers) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def terminate(self) -> int:
        """Send SIGTERM; the exit code."""
        self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), patience())


@asynccontextmanager
async def running(at: Place, log: Path, *, healthy: bool = True) -> AsyncIterator[Sample]:
    """Start the application; killed at the end unless it has ended."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", cwd=EXAMPLE / "app", env=at.environment, stdout=output, stderr=output
        )
    try:
        async with aiohttp.ClientSession(at.access.url) as http:
            sample = Sample(place=at, process=process, http=http, log=log)
            await until(lambda: answers(http, 200 if healthy else 503), what="the application answers")
            yield sample
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def answers(http: aiohttp.ClientSession, status: int) -> bool:
    """Whether the health check answers with ``status``."""
    try:
        async with http.get("/healthz") as answer:
            return answer.status == status
    except aiohttp.ClientError:
        return False


async def until(holds: Callable[[], Awaitable[bool]], *, what: str, seconds: float = 15.0) -> None:
    """Poll until true; fails the test, naming ``what``, when ``seconds`` have passed."""
    deadline = monotonic() + patience(seconds)
    while not await holds():
        assert monotonic() < deadline, f"not within {patience(seconds)} s: {what}"
        await asyncio.sleep(0.02)


def idea(**fields: Any) -> dict[str, Any]:
    """A valid idea as JSON; ``document`` as bytes or as text to send as it is."""
    document = fields.pop("document", b"a document")
    sent = base64.b64encode(document).decode() if isinstance(document, bytes) else document
    return {"title": "An idea", "text": "All of it.", "author": "ada", "document": sent} | fields
