"""What of an image goes through NATS when it is saved at one site, moves to another and runs there: the bytes that come
to all servers of a stack (hub and two sites, each of which counts what passes it), less what comes to them in the same
time when nothing is asked for (looked at before and afterwards; the less of both).

An app with one volume; of its files a quarter can't be compressed, and every chunk is another one. The app is saved,
deleted where it was (so that the disk need not hold all twice), and the image is run at the other site, which fetches
it from the first one's repository; all its files are read there. In turns with images of two sizes: what NATS carries
is told of the operation, of its steps and of their progress, and so grows with the time that it takes, not with the
image.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from blake3 import blake3

from hub.client import Client
from schemas.values import TemplateRef
from tests.bench.harness import Curve, Figure, Scale
from tests.e2e.stack import Stack, running_stack

TITLE = "An image across sites"
MIB = 1 << 20
SIZES_MIB = {Scale.FULL: (1024, 10_240), Scale.SMOKE: (8, 64)}
FILE_MIB = 64
FRESH_BYTES = 256 << 10
"""Of each MiB, what can't be compressed."""
IDLE_SECONDS = {Scale.FULL: 10.0, Scale.SMOKE: 3.0}
OPERATION_SECONDS = 900.0
LIMIT_BYTES = 1 * MIB
APP = """
import http.server, os

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""


class Counted(NamedTuple):
    """The bytes that came to all servers, and when (seconds)."""

    bytes: int
    at: float


class Moved(NamedTuple):
    """What one image cost: bytes that came to the servers, seconds, and the bytes that lie in the repository of the
    second site for it."""

    carried: int
    seconds: float
    stored: int


def blocks(mib: int) -> Iterator[bytes]:
    """Blocks of 1 MiB, no two alike in any part that could be a chunk."""
    chosen = random.Random(5)
    text = b" ".join(b"%06x" % chosen.getrandbits(24) for _ in range(16)) * 40
    for at in range(mib):
        number = b"%012d" % at
        yield chosen.randbytes(FRESH_BYTES) + (number + text)[:4096] * ((MIB - FRESH_BYTES) // 4096)


def fill(directory: Path, mib: int) -> str:
    """Writes the files; the digest of all."""
    whole = blake3()
    made = blocks(mib)
    for number in range(-(-mib // FILE_MIB)):
        with (directory / f"{number:05}").open("wb") as file:
            for _, block in zip(range(min(FILE_MIB, mib - number * FILE_MIB)), made, strict=False):
                file.write(block)
                whole.update(block)
    return whole.hexdigest()


def digest_of(directory: Path) -> str:
    """The digest of all files."""
    whole = blake3()
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            while block := file.read(8 * MIB):
                whole.update(block)
    return whole.hexdigest()


def template(directory: Path) -> Path:
    """An app with a volume."""
    (directory / "app.py").write_text(APP)
    document = {
        "name": "files",
        "version": "1.0.0",
        "entrypoint": "web",
        "services": {
            "web": {
                "type": "public",
                "artifact": {"type": "process", "directory": str(directory), "command": ["python", "app.py"]},
                "port": 8080,
                "environment": {"FILES": "${files.path}"},
                "health": {"path": "/healthz", "interval_seconds": 1, "timeout_seconds": 5},
            }
        },
        "data_services": {"files": {"type": "volume", "broker": "volume", "plan": "small"}},
    }
    file = directory / "files.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


class Measure:
    """A stack with its servers' counters."""

    def __init__(self, stack: Stack, client: Client) -> None:
        self._client = client
        self._monitors = _monitors(stack.home)
        self.idle = math.inf
        """Bytes per second that come when nothing is asked for."""

    async def count(self) -> Counted:
        found = await asyncio.gather(*(asyncio.to_thread(_in_bytes, port) for port in self._monitors))
        return Counted(sum(found), time.monotonic())

    async def rest(self, seconds: float) -> None:
        before = await self.count()
        await asyncio.sleep(seconds)
        after = await self.count()
        self.idle = min(self.idle, (after.bytes - before.bytes) / (after.at - before.at))

    async def move(self, name: str, mib: int) -> Moved:
        """There, and gone again afterwards."""
        client = self._client
        app = await self._app(await client.deploy(TemplateRef(name="files"), name=name, site="north"))
        written = await asyncio.to_thread(fill, await self._files(app), mib)
        stored = (await client.repository("filesystem", site="south")).stored
        before = await self.count()
        saving = await client.save(app, name=name)
        await client.wait(saving.operation or "", timeout=OPERATION_SECONDS)
        saved = await self.count()
        await self._done(await client.delete(app))
        begun = await self.count()
        there = await self._app(await client.run(saving.target, name=f"{name}-there", site="south"))
        after = await self.count()
        if await asyncio.to_thread(digest_of, await self._files(there)) != written:
            raise AssertionError("what came to the other site is not what was saved")
        arrived = (await client.repository("filesystem", site="south")).stored - stored
        await self._done(await client.delete(there))
        await self._done(await client.delete_image(saving.target))
        seconds = (saved.at - before.at) + (after.at - begun.at)
        carried = (saved.bytes - before.bytes) + (after.bytes - begun.bytes)
        return Moved(carried, seconds, arrived)

    async def _app(self, started: object) -> str:
        operation, target = getattr(started, "operation", None), str(getattr(started, "target", ""))
        await self._client.wait(operation or "", timeout=OPERATION_SECONDS)
        return target

    async def _done(self, started: object) -> None:
        await self._client.wait(getattr(started, "operation", None) or "", timeout=OPERATION_SECONDS)

    async def _files(self, app: str) -> Path:
        return Path((await self._client.binding(app, "files")).attributes["path"])


def _monitors(home: Path) -> list[int]:
    """Where the servers of hub and sites tell what they did; the apps' own servers carry nothing of ours."""
    files = [path for path in (home / "config").rglob("*.conf") if "apps" not in path.name]
    found = {int(port) for path in files for port in re.findall(r'(?m)^http: "[^"]*:(\d+)"', path.read_text())}
    if len(found) < 3:
        raise AssertionError(f"{len(found)} servers were found in {home}")
    return sorted(found)


def _in_bytes(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/varz", timeout=30) as answer:
        return int(json.load(answer)["in_bytes"])


async def run(scale: Scale) -> list[Figure | Curve]:
    """Measure."""
    full = scale is Scale.FULL
    small, big = SIZES_MIB[scale]
    with tempfile.TemporaryDirectory(prefix="calque-across-") as directory:
        home = Path(directory)
        async with running_stack(home / "home") as stack, await stack.client() as client:
            (home / "app").mkdir()
            await stack.must("template", "apply", str(template(home / "app")))
            measure = Measure(stack, client)
            await measure.rest(IDLE_SECONDS[scale])
            few, many = [await measure.move(f"files-{mib}", mib) for mib in (small, big)]
            await measure.rest(IDLE_SECONDS[scale])
    of_few, of_many = (each.carried - measure.idle * each.seconds for each in (few, many))
    told = (
        f"{many.stored / MIB:.0f} MiB came to the second repository in {many.seconds:.0f} s; with what comes anyway "
        f"{many.carried / MIB:.2f} MiB"
    )
    return [
        Figure(
            name=f"through all NATS servers, {big / 1024:g} GiB",
            value=of_many / MIB,
            unit="MiB",
            at_most=LIMIT_BYTES / MIB if full else None,
            detail=told,
        ),
        Figure(name=f"through all NATS servers, {small / 1024:g} GiB", value=of_few / MIB, unit="MiB"),
        Figure(
            name="of a further MiB of the image, through NATS",
            value=(of_many - of_few) / (big - small),
            unit="B",
            kind="ratio",
            at_most=LIMIT_BYTES / (big - small) if full else None,
        ),
        Figure(name="servers at rest", value=measure.idle / 1024, unit="KiB/s"),
        Figure(name="image to the other site and running there, with the save", value=big / many.seconds, unit="MiB/s"),
    ]
