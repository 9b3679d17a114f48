"""Use of an S3 bucket by its binding: ``endpoint``, ``bucket``, ``region``, ``access_key`` and ``secret_key``."""

from __future__ import annotations

from datetime import timedelta

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from schemas.brokers import Bound


class ObjectsProbe:
    """An object per key."""

    keeps = True

    async def write(self, bound: Bound, key: str, text: str) -> None:
        """Put the object."""
        await obstore.put_async(_store(bound), key, text.encode())

    async def read(self, bound: Bound) -> dict[str, str]:
        """All objects."""
        store = _store(bound)
        found: dict[str, str] = {}
        async for batch in obstore.list(store):
            for item in batch:
                body = await (await obstore.get_async(store, item["path"])).bytes_async()
                found[item["path"]] = bytes(body).decode()
        return found

    async def opens(self, bound: Bound) -> bool:
        """Whether the keys are let in."""
        try:
            await self.read(bound)
        except (BaseError, PermissionError):
            return False
        return True


def _store(bound: Bound) -> S3Store:
    endpoint = bound.attributes["endpoint"]
    return S3Store(
        bucket=bound.attributes["bucket"],
        endpoint=endpoint,
        region=bound.attributes.get("region", "us-east-1"),
        access_key_id=bound.attributes["access_key"],
        secret_access_key=bound.secrets["secret_key"].value,
        client_options={"allow_http": endpoint.startswith("http://")},
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=5)},
    )


PROBE = ObjectsProbe()
