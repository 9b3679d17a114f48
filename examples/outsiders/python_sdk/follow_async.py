"""Prints each saved image once: follow_async.py CREDENTIALS FILE [COUNT]

The place in the record is kept by the hub; FILE holds the ids of events that were printed. Without COUNT, for ever.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hub.client import Client, read_context


def remember(handled: Path, id: str) -> None:
    with handled.open("a") as ids:
        print(id, file=ids)


async def main(credentials: str, file: str, count: str = "0") -> int:
    handled = Path(file)
    seen = set(handled.read_text().split()) if handled.exists() else set()
    left = int(count)
    async with (
        await Client.connect(read_context(Path(credentials))) as client,
        client.subscribe("saved-async", types=["image.saved"], start="first") as events,
    ):
        async for event in events:
            if event.id in seen:
                continue  # it came again: its effect is there
            print(event.about, event.site, flush=True)
            remember(handled, event.id)
            left -= 1
            if left == 0:
                break  # leaving in good order acknowledges this one too
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:4])))
