"""Saves an app as an image and waits for it, without asyncio: save_sync.py CREDENTIALS APP IMAGE"""

from __future__ import annotations

import sys
from pathlib import Path

from hub.client import ClientError, SyncClient, read_context


def main(credentials: str, app: str, image: str) -> int:
    with SyncClient.connect(read_context(Path(credentials))) as client:
        try:
            started = client.save(app, name=image, comment="by the SDK")
            if started.operation is not None:
                client.wait(started.operation, timeout=600)
        except ClientError as error:
            print(error.problem.sentence(), file=sys.stderr)
            return 1
    print(started.target)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
