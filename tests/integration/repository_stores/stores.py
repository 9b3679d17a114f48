"""Object stores of repositories as the conformance tests open them: in this process, and in one that is killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brokers.filesystem.objects import DirectoryStore
from brokers.postgres_repository.settings import DatabaseSection
from brokers.postgres_repository.store import PostgresStore
from brokers.repository.objects import ObjectStore, StoredObject
from brokers.s3_repository.settings import BucketSection
from brokers.s3_repository.store import S3Store
from tests.servers import RunningPostgres, RunningS3
from tests.unit.repository.memory_store import MemoryStore

_numbers = itertools.count()


def open_store(kind: str, settings: Mapping[str, Any]) -> ObjectStore:
    """The store of a kind for settings that JSON can hold."""
    if kind == "memory":
        return MemoryStore()
    if kind == "filesystem":
        return DirectoryStore(Path(settings["directory"]))
    if kind == "s3":
        return S3Store(BucketSection.model_validate(settings))
    if kind == "postgres":
        return PostgresStore(DatabaseSection.model_validate(settings))
    raise LookupError(kind)


def s3_settings(server: RunningS3) -> dict[str, Any]:
    """A prefix of its own in a bucket that the tests share: a bucket costs the server volumes."""
    return {
        "endpoint": server.server.endpoint,
        "region": server.server.region,
        "name": "repository-stores",
        "prefix": f"store-{next(_numbers)}/",
        "create": True,
        "access_key_file": str(server.server.access_key_file),
        "secret_key_file": str(server.server.secret_key_file),
    }


def postgres_settings(server: RunningPostgres) -> dict[str, Any]:
    """A schema of its own."""
    return {
        "host": server.server.host,
        "port": server.server.port,
        "user": server.server.user,
        "database": "postgres",
        "password_file": str(server.server.password_file),
        "schema_name": f"store_{next(_numbers)}",
    }


class Shelf:
    """A store whose calls are awaited; they run in threads as they do in a broker."""

    def __init__(self, kind: str, settings: Mapping[str, Any]) -> None:
        self.kind = kind
        self.settings = settings
        self.store = open_store(kind, settings)

    async def put(self, name: str, content: bytes | memoryview) -> None:
        await asyncio.to_thread(self.store.put, name, content)

    async def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return await asyncio.to_thread(lambda: self.store.read(name, offset=offset, length=length))

    async def look(self, name: str) -> StoredObject | None:
        return await asyncio.to_thread(self.store.look, name)

    async def listing(self, prefix: str = "") -> list[StoredObject]:
        return await asyncio.to_thread(lambda: list(self.store.list(prefix)))

    async def names(self, prefix: str = "") -> list[str]:
        return [each.name for each in await self.listing(prefix)]

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self.store.delete, name)

    async def now(self) -> float:
        return await asyncio.to_thread(self.store.now)

    async def begin_put_elsewhere(self, name: str, *, size: int) -> asyncio.subprocess.Process:
        """A process that is about to put an object of zeros when this returns."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, self.kind, json.dumps(dict(self.settings)), name, str(size)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    def close(self) -> None:
        self.store.close()


def _put_as_told() -> None:
    kind, settings, name, size = sys.argv[1:]
    store = open_store(kind, json.loads(settings))
    store.look(name)  # what is made at the first use is made now
    content = bytes(int(size))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    store.put(name, content)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    _put_as_told()
