"""Moving objects: exact versions out of a bucket, entries into a bucket. The only module that imports obstore.

Small objects move many at a time and through memory; a big one streams, while nothing else of the copy waits in
memory for longer than a window. obstore normalises keys as paths; those that it would change go through boto3.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from brokers.s3.control import Control, Version, in_thread, is_changed, is_gone
from brokers.sdk.errors import temporary_error
from schemas.problems import CalqueError, Problem, permanent, temporary

CONCURRENCY = 16
SMALL_BYTES = 4 << 20
BLOCK_BYTES = 1 << 20
MULTIPART_BYTES = 8 << 20
_DROPPED_ATTRIBUTES = frozenset({"Storage-Class"})

Entry = tuple[str, Mapping[str, str], int, AsyncIterator[bytes]]
Fetched = tuple[dict[str, str], AsyncIterator[bytes]]


class VersionGone(Exception):
    """An object's version is not there any more; the message names the object."""


class Objects:
    """The objects of one bucket, with the keys of ``control``."""

    def __init__(self, control: Control, bucket: str) -> None:
        access_key, secret = control.place.keys()
        self._control = control
        self._bucket = bucket
        self._store = S3Store(
            bucket,
            endpoint=control.place.endpoint,
            region=control.place.region,
            access_key_id=access_key,
            secret_access_key=secret.value,
            virtual_hosted_style_request=False,
            # `timeout` would end a big object that a slow reader takes its time with
            client_options={
                "allow_http": True,
                "connect_timeout": "3s",
                "read_timeout": "60s",
                "timeout": "12h",
            },
            retry_config={"max_retries": 3},
        )

    async def entries(self, listing: Sequence[Version]) -> AsyncIterator[Entry]:
        """The listed versions as entries of a copy, in order. Raises :class:`VersionGone`."""
        waiting = deque(listing)
        fetching: deque[tuple[Version, asyncio.Task[Fetched]]] = deque()
        try:
            while waiting or fetching:
                while waiting and len(fetching) < CONCURRENCY and waiting[0].size <= SMALL_BYTES:
                    version = waiting.popleft()
                    fetching.append((version, asyncio.create_task(self._fetch(version))))
                if fetching:
                    version, task = fetching[0]
                    attributes, blocks = await task
                    fetching.popleft()
                else:
                    version = waiting.popleft()
                    attributes, blocks = await self._fetch(version)
                yield version.key, attributes, version.size, blocks
        finally:
            for _, task in fetching:
                task.cancel()
            await asyncio.gather(*(task for _, task in fetching), return_exceptions=True)

    async def put(self, key: str, attributes: Mapping[str, str], body: bytes) -> None:
        """Write a small object."""
        if not plain(key):
            await in_thread(self._control.write, self._bucket, key, attributes, body)
            return
        await obstore.put_async(self._store, key, body, attributes=dict(attributes), use_multipart=False)

    async def put_stream(self, key: str, attributes: Mapping[str, str], blocks: AsyncIterator[bytes]) -> None:
        """Write an object of any size."""
        if not plain(key):
            body = b"".join([block async for block in blocks])
            await in_thread(self._control.write, self._bucket, key, attributes, body)
            return
        await obstore.put_async(
            self._store,
            key,
            blocks,
            attributes=dict(attributes),
            use_multipart=True,
            chunk_size=MULTIPART_BYTES,
            max_concurrency=4,
        )

    async def _fetch(self, version: Version) -> Fetched:
        """Attributes and bytes; small objects are read whole, so that their connection is free again."""
        if not plain(version.key):
            try:
                attributes, body = await in_thread(self._control.read, self._bucket, version)
            except Exception as error:
                if is_changed(error):
                    raise _changed(version) from None
                raise (_gone(version) if is_gone(error) else error) from error
            return attributes, _one(body)
        try:
            options: obstore.GetOptions = {"version": version.version}
            if not version.kept and version.etag:
                options = {"if_match": version.etag}
            found = await obstore.get_async(self._store, version.key, options=options)
            attributes = {name: value for name, value in found.attributes.items() if name not in _DROPPED_ATTRIBUTES}
            if version.size <= SMALL_BYTES:
                return attributes, _one(bytes(await found.bytes_async()))
        except FileNotFoundError:
            raise _gone(version) from None
        except PreconditionError:
            raise _changed(version) from None
        return attributes, _blocks(found.stream(min_chunk_size=BLOCK_BYTES))


class Uploads:
    """Writes entries into a bucket, small ones many at a time. Leaving the block waits for all of them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Uploads:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            await self._group.__aexit__(kind, error, None)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def add(self, key: str, attributes: Mapping[str, str], size: int, blocks: AsyncIterator[bytes]) -> None:
        """Read the entry's bytes and have it written. What fails surfaces here or when the block is left."""
        if size > SMALL_BYTES:
            await self._objects.put_stream(key, attributes, blocks)
            return
        body = b"".join([block async for block in blocks])
        await self._slots.acquire()
        self._group.create_task(self._put(key, attributes, body))

    async def _put(self, key: str, attributes: Mapping[str, str], body: bytes) -> None:
        try:
            await self._objects.put(key, attributes, body)
        finally:
            self._slots.release()


def plain(key: str) -> bool:
    """Whether obstore names the object by exactly this key."""
    segments = key.split("/")
    return all(segment not in ("", ".", "..") for segment in segments) and key.isprintable() and "\\" not in key


def explain(error: BaseException) -> Problem | None:
    """The problem that an error of obstore stands for. Its texts are long and hold addresses: not repeated."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return permanent("unauthorised", "S3 refuses the broker", remedy="check access_key_file and secret_key_file")
    if isinstance(error, BaseError):
        return temporary("unavailable", "S3 did not answer well", retry_after_seconds=2.0)
    return None


def _changed(version: Version) -> CalqueError:
    return temporary_error(
        "entry_changed", f"object {version.key!r} was written to after the moment was fixed, and keeps no versions"
    )


def _gone(version: Version) -> VersionGone:
    return VersionGone(f"version {version.version} of object {version.key!r} is gone")


async def _one(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


async def _blocks(stream: obstore.BytesStream) -> AsyncIterator[bytes]:
    async for block in stream:
        yield bytes(block)
