"""What of deployed applications is to be found at a site: looked for past Calque, as an administrator would.

Databases and roles by a superuser's own connection, buckets by the S3 administrator, processes in ``/proc``,
files in the directories of the volumes and of the copy repository, objects in the bucket of one.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psycopg
from botocore.config import Config

from hub.stack.embedded import EmbeddedStack
from hub.stack.servers.postgres import PostgresServer, postgres_server
from hub.stack.servers.seaweed import S3Server, s3_server
from hub.stack.settings import REPOSITORY_BUCKET

_DATA_FOLDERS = ("packs", "copies", "images", "holds", "doomed")  # docs/repository-format.md


@dataclass(frozen=True, kw_only=True)
class Remains:
    """Everything found at one site, each kind by name."""

    databases: frozenset[str] = field(default=frozenset())
    roles: frozenset[str] = field(default=frozenset())
    buckets: frozenset[str] = field(default=frozenset())
    volumes: frozenset[str] = field(default=frozenset())
    processes: frozenset[str] = field(default=frozenset())
    repository_files: frozenset[str] = field(default=frozenset())

    def beyond(self, other: Remains) -> dict[str, list[str]]:
        """What is here and not in ``other``, by kind; kinds with nothing are left out."""
        found = {}
        for kind in self.__dataclass_fields__:
            more = sorted(getattr(self, kind) - getattr(other, kind))
            if more:
                found[kind.replace("_", " ")] = more
        return found


async def remains(stack: EmbeddedStack, site: str) -> Remains:
    """Look at one site. Raises ``psycopg.Error`` or botocore's errors when a server does not answer."""
    place = stack.layout.site(site)
    postgres = postgres_server(directory=place / "postgres", port=stack.ports.postgres[site])
    s3 = s3_server(directory=place / "s3", ports=stack.ports.s3[site])
    databases, roles = await _postgres(postgres)
    buckets, objects = await asyncio.to_thread(_buckets, s3)
    return Remains(
        databases=databases,
        roles=roles,
        buckets=buckets,
        volumes=await asyncio.to_thread(_volumes, stack.layout.volumes(site)),
        processes=await asyncio.to_thread(_processes, place),
        repository_files=objects | await asyncio.to_thread(_files, stack.layout.repository(site)),
    )


async def _postgres(server: PostgresServer) -> tuple[frozenset[str], frozenset[str]]:
    connection = await psycopg.AsyncConnection.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password_file.read_text().strip(),
        dbname="postgres",
        connect_timeout=10,
    )
    async with connection:
        databases = await (await connection.execute("SELECT datname FROM pg_database")).fetchall()
        roles = await (await connection.execute("SELECT rolname FROM pg_roles")).fetchall()
    return frozenset(str(row[0]) for row in databases), frozenset(str(row[0]) for row in roles)


def _buckets(server: S3Server) -> tuple[frozenset[str], frozenset[str]]:
    """The names of all buckets, and of what lies in the one that is a copy repository."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key_file.read_text().strip(),
        aws_secret_access_key=server.secret_key_file.read_text().strip(),
        config=Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3}),
    )
    try:
        buckets = frozenset(str(bucket["Name"]) for bucket in client.list_buckets()["Buckets"])
        if REPOSITORY_BUCKET not in buckets:
            return buckets, frozenset()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=REPOSITORY_BUCKET)
        keys = (str(each["Key"]) for page in pages for each in page.get("Contents", ()))
        return buckets, frozenset(key for key in keys if key.partition("/")[0] in _DATA_FOLDERS)
    finally:
        client.close()


def _volumes(directory: Path) -> frozenset[str]:
    """Trees, whole or half made, labels, prepared copies, and what waits to be removed; not notes of past copies."""
    return frozenset(
        found.relative_to(directory).as_posix()
        for place in directory.iterdir()
        for found in place.iterdir()
        if not (place.name == "moments" and found.suffix == ".json")
    )


def _processes(place: Path) -> frozenset[str]:
    """Processes that run as an app service of this site: the process broker gives each a home of its own there."""
    home = b"HOME=" + bytes(place / "state" / "psb-process" / "services")
    found = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        # It may end while it is looked at, or belong to somebody else.
        with contextlib.suppress(OSError):
            if any(each.startswith(home) for each in (process / "environ").read_bytes().split(b"\0")):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.add(f"{process.name} {command}".strip())
    return frozenset(found)


def _files(repository: Path) -> frozenset[str]:
    return frozenset(
        file.relative_to(repository).as_posix()
        for folder in _DATA_FOLDERS
        for file in (repository / folder).rglob("*")
        if file.is_file()
    )
