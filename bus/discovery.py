"""Finding services by the NATS services API (ADR-32)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from bus.connection import Bus
from schemas.unreadable import UNREADABLE

logger = logging.getLogger(__name__)


class EndpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of a service."""

    name: str
    subject: str
    queue_group: str = ""
    metadata: dict[str, str] = {}


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One running service, ours or anybody's."""

    name: str
    id: str
    version: str
    description: str = ""
    metadata: dict[str, str] = {}
    endpoints: tuple[EndpointInfo, ...] = ()


def parse_info(payload: bytes) -> ServiceInfo:
    """The description in an answer to ``$SRV.INFO``; raises ``msgspec.DecodeError`` or ``UnicodeDecodeError``.

    Other implementations write ``null`` where they have nothing.
    """
    raw = msgspec.json.decode(payload, type=dict[str, Any])
    raw["endpoints"] = [_without_nulls(endpoint) for endpoint in raw.get("endpoints") or ()]
    return msgspec.convert(_without_nulls(raw), ServiceInfo)


def _without_nulls(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value is not None}


async def discover(bus: Bus, *, name: str | None = None, wait_seconds: float = 0.5) -> list[ServiceInfo]:
    """The services that answer within ``wait_seconds``, sorted by name and id; only those of ``name`` if given."""
    found: dict[str, ServiceInfo] = {}
    subject = f"$SRV.INFO.{name}" if name else "$SRV.INFO"

    async def collect() -> None:
        async for message in bus.replies(subject, b"", gap_seconds=wait_seconds):
            try:
                info = parse_info(message.payload)
            except UNREADABLE as error:
                logger.warning("an answer to %s is not the description of a service: %s", subject, error)
                continue
            found[info.id] = info

    try:
        async with asyncio.timeout(wait_seconds):
            await collect()
    except TimeoutError:
        logger.debug("%s: %d answers in %g s", subject, len(found), wait_seconds)
    return sorted(found.values(), key=lambda info: (info.name, info.id))
