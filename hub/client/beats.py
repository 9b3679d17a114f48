"""Listens to heartbeats: who lives, which version runs there, and how far its clock is from ours."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import NamedTuple

from bus.connection import Bus, Message
from schemas import subjects
from schemas.envelope import decode, parse_timestamp, unwrap
from schemas.signals import Beat

ALL_BEATS = f"{subjects.ROOT}.beat.>"


class Heard(NamedTuple):
    """The last heartbeat of one sender. ``ahead_seconds`` is its clock before ours, the way of the message left out."""

    beat: Beat
    ahead_seconds: float


async def listen(bus: Bus, *, senders: Collection[str], seconds: float) -> dict[str, Heard]:
    """The heartbeats by sender, as soon as all ``senders`` were heard, at most after ``seconds``."""
    heard: dict[str, Heard] = {}
    all_heard = asyncio.Event()

    async def hear(message: Message) -> None:
        now = datetime.now(UTC)
        envelope = decode(message.payload)
        sender = message.subject.rpartition(".")[2]
        heard[sender] = Heard(unwrap(envelope, Beat), (parse_timestamp(envelope.time) - now).total_seconds())
        if heard.keys() >= set(senders):
            all_heard.set()

    subscription = await bus.subscribe(ALL_BEATS, hear)
    try:
        async with asyncio.timeout(seconds):
            await all_heard.wait()
    except TimeoutError:
        return heard
    finally:
        await subscription.drop()
    return heard
