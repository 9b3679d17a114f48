"""Counts what it hears on ``votes.cast``, tells each new count on ``votes.counted.<choice>``, answers ``votes.total``.

python -m tally.counter
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from nats.aio.msg import Msg

from tally.channel import connect


async def main() -> None:
    """Count for ever."""
    channel = await connect("counter")
    counts: Counter[str] = Counter()

    async def cast(message: Msg) -> None:
        choice = message.data.decode()
        counts[choice] += 1
        await channel.publish(f"votes.counted.{choice}", str(counts[choice]).encode())

    async def total(message: Msg) -> None:
        await message.respond(json.dumps(counts).encode())

    await channel.subscribe("votes.cast", cb=cast)
    await channel.subscribe("votes.total", cb=total)
    await channel.flush()
    print("counting", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
