"""Prints each saved image once, by NATS and JSON: follow.py CREDENTIALS FILE [COUNT]

The place in the record is kept by the hub; FILE holds the ids of events that were printed. Without COUNT, for ever.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
from calque import JETSTREAM, Hub


def remember(handled: Path, id: str) -> None:
    with handled.open("a") as ids:
        print(id, file=ids)


async def main(credentials: str, file: str, count: str = "0") -> int:
    handled = Path(file)
    seen = set(handled.read_text().split()) if handled.exists() else set()
    left = int(count)
    hub = await Hub.connect(Path(credentials))
    try:
        wanted = {"name": "saved-plain", "start": "first", "types": ["image.saved"]}
        opened = await hub.ask(f"calque.act.{hub.principal}.subscribe", "act.subscribe", wanted)
        place = opened["subscription"]
        jetstream = hub.connection.jetstream(prefix=JETSTREAM)
        events = await jetstream.pull_subscribe_bind(place["consumer"], stream=place["stream"])
        while True:
            try:
                batch = await events.fetch(10, timeout=5)
            except nats.errors.TimeoutError:
                continue
            for message in batch:
                event = json.loads(message.data)
                if event["id"] not in seen:
                    site, image = message.subject.split(".")[2], message.subject.split(".")[4]
                    print(image, site, flush=True)
                    seen.add(event["id"])
                    remember(handled, event["id"])
                    left -= 1
                await message.ack()  # after its effect: until then it comes again
                if left == 0:
                    await hub.connection.flush()
                    return 0
    finally:
        await hub.connection.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:4])))
