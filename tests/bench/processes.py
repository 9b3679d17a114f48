"""Processes that a benchmark measures: started, watched for what they use, stopped by their own id."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

READY_SECONDS = 180.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Running:
    """A process of a benchmark."""

    def __init__(self, process: subprocess.Popen[bytes], *, log: Path, ready: Path | None = None) -> None:
        self._process = process
        self._log = log
        self._ready = ready

    async def until_ready(self) -> None:
        """Wait for the file that says so. Raises ``RuntimeError`` with the end of the log."""
        assert self._ready is not None
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while not self._ready.exists():
            if self._process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"it did not become ready:\n{self._log.read_text()[-2000:]}")
            await asyncio.sleep(POLL_SECONDS)

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        return cpu_seconds_of(self._process.pid)

    def peak_memory_bytes(self) -> int:
        """The most that was resident."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not tell")


@contextmanager
def python(module: str, *arguments: str, home: Path) -> Iterator[Running]:
    """``python -m module``; killed at the end."""
    with _running([sys.executable, "-m", module, *arguments], home=home, environment={}) as running:
        yield running


@contextmanager
def hub(*, url: str, sites: Sequence[str], home: Path) -> Iterator[Running]:
    """A hub process on the server at ``url``."""
    home.mkdir(parents=True, exist_ok=True)
    config, ready = home / "hub.json", home / "ready"
    ready.unlink(missing_ok=True)
    config.write_text(json.dumps({"bus": {"servers": [url], "name": "hub"}, "sites": list(sites)}))
    environment = {"CALQUE_CONFIG": str(config), "CALQUE_READY_FILE": str(ready)}
    with _running([sys.executable, "-m", "hub"], home=home, environment=environment, ready=ready) as running:
        yield running


@contextmanager
def _running(
    command: Sequence[str], *, home: Path, environment: dict[str, str], ready: Path | None = None
) -> Iterator[Running]:
    home.mkdir(parents=True, exist_ok=True)
    log = home / "log"
    with log.open("ab") as file:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=file, stderr=file)
    try:
        yield Running(process, log=log, ready=ready)
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=STOP_SECONDS)
