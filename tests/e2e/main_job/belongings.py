"""What of apps and images is to be found at a site, looked for past Calque, as an administrator would."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg
from botocore.config import Config

from hub.stack.servers.postgres import postgres_server
from hub.stack.servers.seaweed import ROLES, S3Ports, S3Server, s3_server


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """Everything found at one site, each kind by name. ``secrets`` are files of the agent's encrypted store."""

    databases: frozenset[str]
    roles: frozenset[str]
    buckets: frozenset[str]
    identities: frozenset[str]
    processes: frozenset[str]
    service_files: frozenset[str]
    repository_files: frozenset[str]
    secrets: frozenset[str]

    def beyond(self, other: Belongings) -> dict[str, list[str]]:
        """What is here and not in ``other``, by kind; kinds with nothing are left out."""
        mine, theirs = asdict(self), asdict(other)
        return {kind: sorted(mine[kind] - theirs[kind]) for kind in mine if mine[kind] - theirs[kind]}


async def belongings(home: Path, site: str) -> Belongings:
    """Look at one site of the running stack in ``home``."""
    ports = json.loads((home / "ports.json").read_text())
    place = home / "sites" / site
    databases, roles = await _postgres(place / "postgres", ports[f"{site}-postgres"])
    s3_ports = S3Ports(**{role: ports[f"{site}-s3-{role}"] for role in ROLES})
    buckets, identities = await asyncio.to_thread(_s3, s3_server(directory=place / "s3", ports=s3_ports))
    return Belongings(
        databases=databases,
        roles=roles,
        buckets=buckets,
        identities=identities,
        processes=_processes(place),
        service_files=_files(place / "state" / "psb-process" / "services"),
        repository_files=frozenset().union(
            _files(place / "state" / "crb-filesystem" / "open"),
            *(_files(place / "repository" / folder) for folder in ("packs", "copies", "images", "holds", "doomed")),
        ),
        secrets=_files(place / "state" / "agent" / "secrets"),
    )


async def _postgres(directory: Path, port: int) -> tuple[frozenset[str], frozenset[str]]:
    server = postgres_server(directory=directory, port=port)
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


def _s3(server: S3Server) -> tuple[frozenset[str], frozenset[str]]:
    clients: dict[str, Any] = {
        kind: boto3.client(
            kind,
            endpoint_url=server.endpoint,
            region_name=server.region,
            aws_access_key_id=server.access_key_file.read_text().strip(),
            aws_secret_access_key=server.secret_key_file.read_text().strip(),
            config=Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3}),
        )
        for kind in ("s3", "iam")
    }
    try:
        buckets = clients["s3"].list_buckets()["Buckets"]
        users = clients["iam"].list_users()["Users"]
    finally:
        for client in clients.values():
            client.close()
    return frozenset(str(each["Name"]) for each in buckets), frozenset(str(each["UserName"]) for each in users)


def _processes(place: Path) -> frozenset[str]:
    """Processes that run as an app service of this site: each has a home of its own below the broker's state."""
    home = b"HOME=" + bytes(place / "state" / "psb-process" / "services")
    found = set()
    for process in Path("/proc").iterdir():
        # It may end while it is looked at, or belong to somebody else.
        with contextlib.suppress(OSError):
            if process.name.isdigit() and any(
                each.startswith(home) for each in (process / "environ").read_bytes().split(b"\0")
            ):
                found.add(process.name)
    return frozenset(found)


def _files(directory: Path) -> frozenset[str]:
    return frozenset(str(file.relative_to(directory.parent)) for file in directory.rglob("*") if file.is_file())
