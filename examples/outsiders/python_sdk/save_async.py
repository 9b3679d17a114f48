"""Saves an app as an image and waits for it: save_async.py CREDENTIALS APP IMAGE"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hub.client import Client, ClientError, read_context


async def main(credentials: str, app: str, image: str) -> int:
    async with await Client.connect(read_context(Path(credentials))) as client:
        try:
            started = await client.save(app, name=image, comment="by the asynchronous SDK")
            if started.operation is not None:
                await client.wait(started.operation, timeout=600)
        except ClientError as error:
            print(error.problem.sentence(), file=sys.stderr)
            return 1
    print(started.target)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:4])))
