"""Prints each saved image once, without asyncio: follow_sync.py CREDENTIALS FILE [COUNT]

The place in the record is kept by the hub; FILE holds the ids of events that were printed. Without COUNT, for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hub.client import SyncClient, read_context


def main(credentials: str, file: str, count: str = "0") -> int:
    handled = Path(file)
    seen = set(handled.read_text().split()) if handled.exists() else set()
    left = int(count)
    with (
        SyncClient.connect(read_context(Path(credentials))) as client,
        client.subscribe("saved-sync", types=["image.saved"], start="first") as events,
    ):
        for event in events:
            if event.id in seen:
                continue  # it came again: its effect is there
            print(event.about, event.site, flush=True)
            with handled.open("a") as ids:
                print(event.id, file=ids)
            left -= 1
            if left == 0:
                break  # leaving in good order acknowledges this one too
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
