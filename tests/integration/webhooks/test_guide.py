"""The receiver of the guide takes what we send, and nothing that others send in our name."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import aiohttp

from hub.webhooks.sending import Sender
from schemas.secrets import Secret

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "webhook" / "receiver.py"
SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY="
BODY = b'{"specversion":"1.0","id":"e1","type":"calque.event.image.saved.v1","source":"north","data":{}}'


async def test_the_receiver_of_the_guide_takes_an_event_once() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), "0"),
        env={**os.environ, "WEBHOOK_SECRET": SECRET},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    sender = Sender(allow_private=True)
    try:
        async with asyncio.timeout(60):
            port = (await process.stdout.readline()).split()[-1].decode()
            url = f"http://127.0.0.1:{port}/"
            for secret, status in ((SECRET, 204), (SECRET, 204), (SECRET.replace("QUJD", "QUJE"), 401)):
                result = await sender.send(url, id="e1", body=BODY, secrets=[Secret(value=secret)], timeout_seconds=60)
                assert result.status == status
            async with aiohttp.ClientSession() as session, session.post(url, data=BODY) as answer:
                assert answer.status == 401
            said = await process.stdout.readline()
            assert said.startswith(b"calque.event.image.saved.v1 north")
    finally:
        await sender.close()
        process.terminate()
        rest = await process.stdout.read()
        await process.wait()
    assert rest == b"", "the repeat was dropped"


def test_the_guide_shows_the_code_of_the_example() -> None:
    guide = (ROOT / "docs" / "how-to" / "webhooks.md").read_text()
    [code] = [block.partition("```")[0] for block in guide.split("```python\n")[1:]]
    assert code in EXAMPLE.read_text()
