"""Reads all that a running application holds, past the application: rows by psycopg, objects by obstore, previews as
files."""

import asyncio
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
import psycopg
from obstore.exceptions import BaseError
from obstore.store import S3Store
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from obstore import ObjectMeta

_READS_AT_ONCE = 24
_NAMED = re.compile(rb'data-document="([0-9a-f]{64})"')


class UnreadableError(Exception):
    """Postgres, the bucket or the volume of a running application could not be read; says which, and why."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where a running application and its data services are reached, and with what. Secrets stay out of
    ``repr``."""

    url: str
    postgres_uri: str = field(repr=False)
    s3_endpoint: str
    s3_bucket: str
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    s3_region: str = "us-east-1"
    thumbs_path: str = ""

    def bindings(self) -> dict[str, str]:
        """The single parts of the bindings, by name; secrets among them, so not for showing."""
        parts = urlsplit(self.postgres_uri)
        return {
            "database address": f"{parts.hostname}:{parts.port or 5432}",
            "database": unquote(parts.path.strip("/")),
            "database user": unquote(parts.username or ""),
            "database password": unquote(parts.password or ""),
            "object store address": urlsplit(self.s3_endpoint).netloc,
            "bucket": self.s3_bucket,
            "access key": self.s3_access_key,
            "secret key": self.s3_secret_key,
            **({"volume": self.thumbs_path} if self.thumbs_path else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table of ideas."""

    id: str
    title: str
    text: str
    author: str
    votes: int
    doc_key: str
    doc_digest: str
    doc_size: int
    writer: str | None
    seq: int | None


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A preview: the SHA-256 of its file, and that of the document which it says it shows."""

    digest: str
    document: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All rows, the SHA-256 and size of every object that the bucket really holds, by key, and the previews that
    are on the volume, by idea; ``None`` without a volume."""

    rows: tuple[Row, ...]
    objects: dict[str, tuple[str, int]]
    previews: dict[str, Preview] | None = None

    def digest(self) -> str:
        """One SHA-256 over everything: equal for two exactly when they hold the same."""
        rows = [asdict(row) for row in sorted(self.rows, key=lambda row: row.id)]
        previews = sorted((idea, each.digest) for idea, each in (self.previews or {}).items())
        whole = json.dumps([rows, sorted(self.objects.items()), previews], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()


async def contents(access: Access) -> Contents:
    """Read everything.

    Raises:
        UnreadableError: Postgres or the bucket cannot be read.
    """
    rows = await _rows(access.postgres_uri)
    objects = await _objects(access)
    previews = await asyncio.to_thread(_previews, Path(access.thumbs_path)) if access.thumbs_path else None
    return Contents(rows=rows, objects=objects, previews=previews)


async def fingerprint(access: Access) -> str:
    """:meth:`Contents.digest` of what is there now: to see whether anything changed."""
    return (await contents(access)).digest()


async def outline(access: Access) -> str:
    """A digest of all rows, of the bucket's listing (keys, sizes, ETags) and of the volume's files: whether
    anything changed in one application since it was last asked. Two applications can't be compared by it.

    Raises:
        UnreadableError: Postgres, the bucket or the volume cannot be read.
    """
    rows = [asdict(row) for row in sorted(await _rows(access.postgres_uri), key=lambda row: row.id)]
    listed = sorted((entry["path"], entry["size"], entry["e_tag"]) for entry in await _listing(access))
    previews = await asyncio.to_thread(_previews, Path(access.thumbs_path)) if access.thumbs_path else {}
    files = sorted((idea, each.digest) for idea, each in previews.items())
    return hashlib.sha256(json.dumps([rows, listed, files], sort_keys=True).encode()).hexdigest()


async def _rows(uri: str) -> tuple[Row, ...]:
    try:
        connection = await psycopg.AsyncConnection.connect(uri, row_factory=dict_row, connect_timeout=10)
        async with connection:
            await connection.set_read_only(True)
            cursor = await connection.execute(
                "SELECT id::text AS id, title, text, author, votes, doc_key, doc_digest, doc_size, writer, seq"
                " FROM ideas ORDER BY writer, seq, id"
            )
            return tuple([Row(**row) async for row in cursor])
    except psycopg.Error as error:
        raise UnreadableError(f"Postgres of the application cannot be read: {error}") from error


def _store(access: Access) -> S3Store:
    return S3Store(
        access.s3_bucket,
        endpoint=access.s3_endpoint,
        access_key_id=access.s3_access_key,
        secret_access_key=access.s3_secret_key,
        region=access.s3_region,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": timedelta(seconds=20)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


async def _listing(access: Access) -> "list[ObjectMeta]":
    try:
        return [entry async for chunk in obstore.list(_store(access), chunk_size=1000) for entry in chunk]
    except (BaseError, OSError) as error:
        raise _unreadable(access, error) from error


def _previews(directory: Path) -> dict[str, Preview]:
    try:
        content = {file.stem: file.read_bytes() for file in directory.glob("*/*") if file.is_file()}
    except OSError as error:
        raise UnreadableError(f"volume {directory} cannot be read: {error.strerror}") from error
    return {
        idea: Preview(
            digest=hashlib.sha256(picture).hexdigest(),
            document=named[1].decode() if (named := _NAMED.search(picture)) else "",
        )
        for idea, picture in content.items()
    }


def _unreadable(access: Access, error: Exception) -> UnreadableError:
    reason = str(error).partition("\n")[0]
    return UnreadableError(f"bucket {access.s3_bucket} cannot be read: {reason}")


async def _objects(access: Access) -> dict[str, tuple[str, int]]:
    store = _store(access)
    found: dict[str, tuple[str, int]] = {}
    slots = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(key: str) -> None:
        async with slots:
            content = bytes(await (await obstore.get_async(store, key)).bytes_async())
        found[key] = (hashlib.sha256(content).hexdigest(), len(content))

    try:
        await asyncio.gather(*(read(entry["path"]) for entry in await _listing(access)))
    except (BaseError, OSError) as error:
        raise _unreadable(access, error) from error
    return found
