"""The supervisor: starts parts in order, restarts those that crash, stops all in bounded time.

It keeps, below the home:

    logs/<part>.log           what the part wrote (one older file is kept as `.log.1`)
    run/status.json           state of every part, for whoever wants to show it
    run/parts/<part>.json     pid and start time of the running process

By the last a start after a SIGKILL of the supervisor finds what the former one left running, and
stops it before it starts anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.stack.errors import PartFailed, StackError
from hub.stack.files import private_directory, write_json
from hub.stack.keeper import Backoff, Keeper, PartState
from hub.stack.leftovers import end_leftovers
from hub.stack.parts import Part
from hub.stack.processes import kill_all, with_environment

STOP_SECONDS = 15.0
KILL_RESERVE_SECONDS = 2.0
"""How long before the end of a stop everything still there is killed."""
MARK = "CALQUE_STACK"
"""Every process of a stack inherits this variable: the home. By it those are found that left their session."""


def stack_mark(run: Path) -> str:
    """The entry in the environment of every process of the stack whose files of running parts lie in ``run``."""
    return f"{MARK}={run.resolve()}"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a supervisor keeps its files."""

    logs: Path
    run: Path

    @property
    def parts(self) -> Path:
        return self.run / "parts"

    @property
    def status(self) -> Path:
        return self.run / "status.json"


class Supervisor:
    """Keeps a set of parts running. Not safe to share between event loops.

    `on_change` is called after every change of a part's state and must not raise.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        places: Places,
        backoff: Backoff | None = None,
        on_change: Callable[[Mapping[str, PartState]], None] | None = None,
    ) -> None:
        _check(parts)
        self._places = places
        self._on_change = on_change
        mark = str(places.run.resolve())
        self._mark = stack_mark(places.run)
        for directory in (places.logs, places.run, places.parts):
            private_directory(directory)
        self._keepers = {
            part.name: Keeper(
                part,
                log_file=places.logs / f"{part.name}.log",
                record_file=places.parts / f"{part.name}.json",
                extra_env={MARK: mark},
                backoff=backoff or Backoff(),
                on_change=self._changed,
            )
            for part in parts
        }
        self._dependents = {
            name: [keeper for keeper in self._keepers.values() if name in keeper.part.depends] for name in self._keepers
        }

    @property
    def states(self) -> Mapping[str, PartState]:
        """The state of every part at this moment."""
        return {name: keeper.state for name, keeper in self._keepers.items()}

    async def start(self) -> None:
        """Stop leftovers, then start all parts, each as soon as those it depends on are ready.

        Returns when all are ready. Raises `PartFailed` when one can't be brought up; everything
        started so far is stopped then.
        """
        await end_leftovers(self._places.parts)
        starting = [asyncio.create_task(self._start_one(keeper)) for keeper in self._keepers.values()]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self.stop()
            raise

    async def restart(self, name: str) -> None:
        """Stop one part and start it again; returns when it is ready."""
        keeper = self._keepers[name]
        loop = asyncio.get_running_loop()
        await keeper.stop(deadline=loop.time() + STOP_SECONDS)
        await keeper.start()

    async def stop(self, *, within: float = STOP_SECONDS) -> None:
        """Stop every part, those that depend on others first; after `within` seconds nothing runs."""
        kill_at = asyncio.get_running_loop().time() + max(within - KILL_RESERVE_SECONDS, 0.0)
        stopped = {name: asyncio.Event() for name in self._keepers}

        async def stop_one(keeper: Keeper) -> None:
            keeper.give_up_waiting()
            for dependent in self._dependents[keeper.part.name]:
                await stopped[dependent.part.name].wait()
            try:
                await keeper.stop(deadline=kill_at)
            finally:
                stopped[keeper.part.name].set()

        results = await asyncio.gather(*(stop_one(keeper) for keeper in self._keepers.values()), return_exceptions=True)
        await asyncio.to_thread(lambda: kill_all(with_environment(self._mark)))
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _start_one(self, keeper: Keeper) -> None:
        for name in keeper.part.depends:
            await self._keepers[name].first_ready()
        await keeper.start()

    def _changed(self) -> None:
        states = self.states
        document = {
            "supervisor": os.getpid(),
            "parts": {name: state.as_json() for name, state in states.items()},
        }
        # A full disk must not take the parts down with it: the file is only for showing.
        with contextlib.suppress(OSError):
            write_json(self._places.status, document)
        if self._on_change is not None:
            self._on_change(states)


def _check(parts: Sequence[Part]) -> None:
    """Raise `StackError` for names used twice, unknown dependencies and cycles."""
    by_name: dict[str, Part] = {}
    for part in parts:
        if part.name in by_name:
            raise StackError(f"part {part.name}: the name is used twice")
        by_name[part.name] = part
    for part in parts:
        for name in part.depends:
            if name not in by_name:
                raise StackError(f"part {part.name}: depends on {name}, which is not among the parts")
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise StackError(f"part {name}: depends on itself by way of {' -> '.join((*path, name))}")
        if name not in done:
            for needed in by_name[name].depends:
                visit(needed, (*path, name))
            done.add(name)

    for part in parts:
        visit(part.name, ())


__all__ = ["Backoff", "PartFailed", "PartState", "Places", "Supervisor"]
