"""A whole stack for end-to-end tests: ``calque up`` as a user runs it, and what a test needs to know of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.client.client import Client
from hub.client.context import load_context
from hub.client.errors import ClientError
from tests.patience import patience

ROOT = Path(__file__).parents[2]
HACKATHON = ROOT / "examples" / "hackathon"
START_SECONDS = 200.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 120.0


@dataclass(frozen=True)
class Ended:
    """How a command of the CLI ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.stdout)


@dataclass
class Stack:
    """A running stack. ``home`` is its directory; parts are named as ``calque up`` names them. ``options`` are further
    ones of ``calque up``, ``module`` is what runs it."""

    home: Path
    sites: tuple[str, ...]
    options: tuple[str, ...] = ()
    module: str = "hub.cli.main"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    async def start(self) -> None:
        """``calque up``; returns when every part is ready and both sites have reported their brokers."""
        self.process = self._spawn()
        await until(self._complete, seconds=START_SECONDS, what=f"the stack in {self.home}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", self.module, "up", "--home", str(self.home)]
        for site in self.sites:
            command += ["--site", site]
        command += self.options
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "up.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT)

    async def stop(self) -> int:
        """SIGTERM to ``calque up``; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, STOP_SECONDS)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    async def _complete(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"calque up ended: {(self.home / 'up.log').read_text()[-2000:]}")
        if not (self.home / "context.json").exists():
            return False
        parts = self.parts()
        if not parts or any(part["phase"] != "ready" for part in parts.values()):
            return False
        try:
            async with await self.client() as client:  # a process for each look would take from what is to start
                sites = await client.sites()
        except ClientError:
            return False
        return len(sites) == len(self.sites) and all(len(site.brokers) >= 4 for site in sites)

    def parts(self) -> dict[str, dict[str, Any]]:
        """What the supervisor says of each part: ``phase``, ``pid``, ``restarts``."""
        try:
            said = json.loads((self.home / "run" / "status.json").read_text())
        except FileNotFoundError:
            return {}
        parts: dict[str, dict[str, Any]] = said.get("parts", said)
        return parts

    def pid(self, part: str) -> int:
        """The process id of a part."""
        return int(self.parts()[part]["pid"])

    def kill(self, part: str) -> int:
        """SIGKILL one part's process; its supervisor starts it again. Returns the pid that was killed."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    async def cli(
        self, *arguments: str, seconds: float = COMMAND_SECONDS, environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Run ``calque`` with ``arguments`` against this stack, off a terminal."""
        seconds = max(seconds, COMMAND_SECONDS)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hub.cli.main",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=HACKATHON,
            env={**os.environ, "CALQUE_HOME": str(self.home), **(environment or {})},
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"calque {' '.join(arguments)} did not end within {seconds:.0f} s") from None
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def must(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> Ended:
        """Like :meth:`cli`, and it has to succeed."""
        ended = await self.cli(*arguments, seconds=seconds)
        assert ended.code == 0, f"calque {' '.join(arguments)}: {ended.code}\n{ended.stdout}\n{ended.stderr}"
        return ended

    async def client(self) -> Client:
        """The SDK, connected as the principal of the embedded stack; the caller closes it."""
        return await Client.connect(load_context(self.home))


@asynccontextmanager
async def running_stack(
    home: Path,
    *,
    sites: tuple[str, ...] = ("north", "south"),
    options: tuple[str, ...] = (),
    module: str = "hub.cli.main",
) -> AsyncIterator[Stack]:
    """A stack of one's own, stopped at the end."""
    stack = Stack(home, sites, options, module)
    try:
        await stack.start()
        yield stack
    finally:
        if stack.process is not None and stack.process.poll() is None:
            await stack.stop()


async def until(
    condition: Callable[[], Awaitable[bool]], *, seconds: float, what: str, every_seconds: float = 0.1
) -> None:
    """Wait until ``condition`` holds; fails the test after ``seconds``."""
    deadline = time.monotonic() + patience(seconds)
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience(seconds):.0f} s"
        await asyncio.sleep(every_seconds)
