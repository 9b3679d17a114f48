"""One attempt to deliver one event over HTTP. The only module of the webhooks that speaks to receivers."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import aiohttp
from yarl import URL

from hub.webhooks.addresses import NotAllowed, PublicResolver, check
from hub.webhooks.schedule import retry_after_seconds
from hub.webhooks.signing import signature
from schemas.brokers import SERVICE_VERSION
from schemas.envelope import CONTENT_TYPE
from schemas.secrets import Secret

MOST_SAID = 300
GONE = 410


class Result(NamedTuple):
    """How an attempt ended. ``status`` is ``None`` when there was no answer; ``asked`` is a wait in seconds."""

    status: int | None
    message: str
    seconds: float
    asked: float | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants nothing any more."""
        return self.status == GONE


class Sender:
    """Sends to receivers; connections are kept open between events."""

    def __init__(self, *, allow_private: bool, ca_file: Path | None = None) -> None:
        self._allow_private = allow_private
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self, url: str, *, id: str, body: bytes, secrets: Sequence[Secret], timeout_seconds: float
    ) -> Result:
        """POST the event. Never raises for what a receiver or the network does."""
        began = time.monotonic()
        now = int(time.time())
        headers = {
            "content-type": CONTENT_TYPE,
            "user-agent": f"calque-webhooks/{SERVICE_VERSION}",
            "webhook-id": id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(secrets, id=id, timestamp=now, body=body),
        }
        status: int | None = None
        asked: float | None = None
        try:
            target = URL(url)
            if not self._allow_private:
                check(target)
            async with (
                asyncio.timeout(timeout_seconds),
                self._opened().post(target, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
                asked = retry_after_seconds(answer.headers.get("retry-after"), now=datetime.now(UTC))
                said = (await answer.content.read(MOST_SAID)).decode("utf-8", "replace")
                message = "" if 200 <= status < 300 else _line(f"{answer.reason or ''} {said}")
                if 300 <= status < 400:
                    message = f"redirects are not followed: {_line(answer.headers.get('location', ''))}"
        except TimeoutError:
            message = f"no answer within {timeout_seconds:g} s"
            status = None
        except NotAllowed as error:
            message = f"{error}; the setting allow_private lets deliveries go there"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            message = _line(f"{type(error).__name__}: {error}")
            status = None
        return Result(status, message, round(time.monotonic() - began, 3), asked)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
            connector = aiohttp.TCPConnector(
                ssl=context, limit=100, resolver=None if self._allow_private else PublicResolver()
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            )
        return self._session


def _line(text: str) -> str:
    """What a stranger said, as one line that a terminal can bear."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:MOST_SAID]
