"""Saves an app as an image and waits for it, by NATS and JSON: save.py CREDENTIALS APP IMAGE"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from calque import Hub, Refused, uuid7

ENDED = ("succeeded", "failed", "cancelled")


async def main(credentials: str, app: str, image: str) -> int:
    hub = await Hub.connect(Path(credentials))
    try:
        found = (await hub.ask("calque.qry.apps", "query.apps", {"name": app})).get("apps", [])
        if not found:
            print(f"there is no app {app}", file=sys.stderr)
            return 1
        made = uuid7()  # ids of what is made are ours to make
        data = {"image": made, "name": image, "tags": [], "comment": "by NATS and JSON"}
        answer = await hub.command("instance", "save", found[0]["id"], data, id=uuid7())
        operation = answer.get("operation") or answer["command"]
        while True:
            known = await hub.ask("calque.qry.operations", "query.operations", {"id": operation})
            views = known.get("operations", [])  # what has its default value is left out
            state = views[0]["state"] if views else "queued"
            if state in ENDED:
                break
            await asyncio.sleep(0.2)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        await hub.connection.close()
    if state != "succeeded":
        print(f"the save {state}: {views[0].get('problem')}", file=sys.stderr)
        return 1
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:4])))
