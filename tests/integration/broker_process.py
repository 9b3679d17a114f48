"""A broker as the stack runs it: a process of its own, asked over the real bus."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bus.connection import Bus
from schemas.brokers import CONTRACTS, CancelRequest, Change, Outcome, Reply, Request, StatusRequest
from schemas.envelope import convert
from schemas.problems import CalqueError, Problem
from schemas.subjects import broker_request
from schemas.values import BrokerKind
from tests.patience import patience

R = TypeVar("R", bound=Reply)


async def eventually(holds: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll until ``holds`` is true; fails, naming ``what``, at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience(seconds)
    while not holds():
        assert loop.time() < deadline, f"{what} did not happen within {patience(seconds)} s"
        await asyncio.sleep(0.02)


class BrokerProcess:
    """``python -m <module>`` with settings in a directory; may be stopped, killed and started again."""

    flags: tuple[str, ...] = ("-X", "dev", "-W", "error")
    """Of the interpreter: tests notice what is forgotten and what is deprecated."""

    def __init__(
        self, module: str, *, bus: Bus, nats_url: str, kind: BrokerKind, name: str, directory: Path, **settings: Any
    ) -> None:
        self._module = module
        self._bus = bus
        self.kind = kind
        self.name = name
        self.directory = directory
        self._config = directory / "config.json"
        self._ready = directory / "ready"
        self.log = directory / "log"
        self._process: asyncio.subprocess.Process | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            json.dumps(
                {
                    "bus": {"servers": [nats_url], "name": f"{kind}-{name}"},
                    "site": "north",
                    "kind": kind,
                    "name": name,
                    "state_dir": str(directory / "state"),
                    **settings,
                }
            )
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self.flags, "-m", self._module),
                env={**os.environ, "CALQUE_CONFIG": str(self._config), "CALQUE_READY_FILE": str(self._ready)},
                stdout=log,
                stderr=log,
            )
        process = self._process
        await eventually(
            lambda: self._ready.exists() or process.returncode is not None, seconds=60, what=f"{self.name} is ready"
        )
        assert process.returncode is None, self.log.read_text()

    async def stop(self, *, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        async with asyncio.timeout(patience()):
            return await process.wait()

    async def kill(self) -> None:
        await self.stop(number=signal.SIGKILL)
        self._ready.unlink(missing_ok=True)

    async def ask(self, operation: str, request: Request, reply: type[R], *, seconds: float = 60) -> R:
        subject = broker_request(site="north", kind=self.kind, broker=self.name, operation=operation)
        return await self._bus.ask(subject, request, reply, source="test", timeout_seconds=seconds)

    async def begin(self, operation: str, request: Change) -> Outcome:
        return await self.ask(operation, request, Outcome)

    async def status(self, id: str) -> Outcome:
        return await self.ask("status", StatusRequest(id=id), Outcome)

    async def cancel(self, id: str) -> Outcome:
        """How it ended: on a busy machine cleaning up takes longer than a request waits."""
        outcome = await self.ask("cancel", CancelRequest(id=id), Outcome)
        return outcome if outcome.state != "running" else await self.ended(id)

    async def ended(self, id: str, *, seconds: float = 240) -> Outcome:
        """The outcome of a long operation, once it is over."""
        deadline = asyncio.get_running_loop().time() + patience(seconds)
        while (outcome := await self.status(id)).state == "running":
            assert asyncio.get_running_loop().time() < deadline, f"{id} still runs after {seconds} s"
            await asyncio.sleep(0.02)
        return outcome

    async def run(self, operation: str, request: Change, result: type[R], *, seconds: float = 240) -> R:
        """The result of a long operation that succeeds."""
        outcome = await self.begin(operation, request)
        if outcome.state == "running":
            outcome = await self.ended(request.id, seconds=seconds)
        assert CONTRACTS[self.kind][operation].result is result
        assert outcome.state == "succeeded", outcome
        return convert(outcome.result, result)

    async def fails(self, operation: str, request: Change) -> Problem:
        """The problem of a long operation that fails."""
        outcome = await self.begin(operation, request)
        if outcome.state == "running":
            outcome = await self.ended(request.id)
        assert outcome.problem is not None, outcome
        return outcome.problem

    async def refuses(self, operation: str, request: Request, reply: type[Reply]) -> Problem:
        """The problem of a short operation that is refused."""
        try:
            answer = await self.ask(operation, request, reply)
        except CalqueError as error:
            return error.problem
        raise AssertionError(f"{operation} answered {answer}")
