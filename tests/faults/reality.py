"""What really is at a site, looked at past Calque as an administrator would: servers, processes, files."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import boto3
import psycopg
from botocore.config import Config

from hub.stack.layout import HomeLayout

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Reality:
    """Everything found at one site, each kind by name. ``moments`` are sessions that hold a prepared copy."""

    databases: frozenset[str]
    roles: frozenset[str]
    moments: frozenset[str]
    buckets: frozenset[str]
    identities: frozenset[str]
    processes: frozenset[str]
    copies: frozenset[str]
    images: frozenset[str]
    staging: frozenset[str]
    chunks: int

    def beyond(self, expected: Reality) -> dict[str, list[str]]:
        """What is here and not expected, by kind."""
        found: dict[str, list[str]] = {}
        for each in fields(self):
            if each.name != "chunks":
                more = sorted(getattr(self, each.name) - getattr(expected, each.name))
                if more:
                    found[each.name] = more
        return found


class Ports:
    """The ports of a home, as the stack wrote them down."""

    def __init__(self, home: Path) -> None:
        self._ports: dict[str, int] = json.loads((home / "ports.json").read_text())

    def __getitem__(self, name: str) -> int:
        return self._ports[name]


async def look(home: Path, site: str) -> Reality:
    """Look at one site. Raises ``psycopg.Error`` or botocore's errors when a server does not answer."""
    place, ports = HomeLayout(home).site(site), Ports(home)
    (databases, roles, moments), (buckets, identities) = await asyncio.gather(
        asyncio.to_thread(_postgres, place / "postgres", ports[f"{site}-postgres"]),
        asyncio.to_thread(_s3, place / "s3", ports[f"{site}-s3-s3"]),
    )
    repository = HomeLayout(home).repository(site)
    return Reality(
        databases=databases,
        roles=roles,
        moments=moments,
        buckets=buckets,
        identities=identities,
        processes=frozenset("/".join(key) for key in app_processes(place).values()),
        copies=frozenset(path.parent.name for path in (repository / "copies").glob("*/[!.]*")),
        images=frozenset(path.parent.name for path in (repository / "images").glob("*/[!.]*")),
        staging=frozenset(path.name for path in (place / "state" / "crb-filesystem" / "open").glob("*")),
        # What a killed writer had begun has a name with a dot, and is swept away some time after.
        chunks=sum(1 for path in (repository / "packs").rglob("[!.]*") if path.is_file()),
    )


def app_processes(place: Path) -> dict[int, tuple[str, str]]:
    """Processes of app services: pid -> (instance, service). The process broker gives each service a home."""
    services = place / "state" / "psb-process" / "services"
    found: dict[int, tuple[str, str]] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # it may end while it is looked at
            for each in (process / "environ").read_bytes().split(b"\0"):
                if each.startswith(b"HOME=" + bytes(services) + b"/"):
                    instance, service = Path(each[5:].decode()).relative_to(services).parts[:2]
                    found[int(process.name)] = (instance, service)
    return found


def _postgres(place: Path, port: int) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    password = (place / "superuser.password").read_text().strip()
    with psycopg.connect(
        host=LOOPBACK, port=port, user="postgres", password=password, dbname="postgres", connect_timeout=5
    ) as db:
        databases = db.execute("SELECT datname FROM pg_database").fetchall()
        roles = db.execute("SELECT rolname FROM pg_roles").fetchall()
        moments = db.execute(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name LIKE 'calque copy %'"
        ).fetchall()
    return _names(databases), _names(roles), _names(moments)


def _names(rows: list[tuple[Any, ...]]) -> frozenset[str]:
    return frozenset(str(row[0]) for row in rows)


def _s3(place: Path, port: int) -> tuple[frozenset[str], frozenset[str]]:
    made: list[Any] = [
        boto3.client(
            service,
            endpoint_url=f"http://{LOOPBACK}:{port}",
            region_name="us-east-1",
            aws_access_key_id=(place / "admin.access-key").read_text().strip(),
            aws_secret_access_key=(place / "admin.secret-key").read_text().strip(),
            config=Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3}),
        )
        for service in ("s3", "iam")
    ]
    s3, iam = made
    try:
        buckets = frozenset(str(bucket["Name"]) for bucket in s3.list_buckets()["Buckets"])
        return buckets, frozenset(str(user["UserName"]) for user in iam.list_users()["Users"])
    finally:
        for client in made:
            client.close()
