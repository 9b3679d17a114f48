"""The way onto the channel: address and credentials as the binding gave them."""

from __future__ import annotations

import os
import sys

import nats
from nats.aio.client import Client, RawCredentials


async def connect(name: str) -> Client:
    """Connect, and stay connected. What the server refuses is said on stderr."""

    async def refused(error: Exception) -> None:
        print(f"{name}: {error}", file=sys.stderr, flush=True)

    return await nats.connect(
        os.environ["EVENTS_URL"],
        user_credentials=RawCredentials(os.environ["EVENTS_CREDS"]),
        inbox_prefix=os.environ["EVENTS_INBOX"].encode(),
        name=name,
        error_cb=refused,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.5,
    )
