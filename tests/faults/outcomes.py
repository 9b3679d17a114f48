"""Which cells are still to be run, where, and what came of the others."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Final

from tests.faults.cells import Cell
from tests.faults.matrix import Outcome
from tests.faults.world import SITES

ALONE: Final = "alone"
"""Where cells wait that need the stack for themselves; the others wait at their site."""


class Cells:
    """The cells that are still to be run, and what came of the others. Each outcome is awaited by a test of its own."""

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._outcomes: dict[Cell, asyncio.Future[Outcome]] = {}
        self._waiting: dict[tuple[str, str], deque[Cell]] = defaultdict(deque)
        loop = asyncio.get_running_loop()
        turns: dict[str, int] = defaultdict(int)
        for cell in cells:
            self._outcomes[cell] = loop.create_future()
            if not cell.alone:
                place = SITES[turns[cell.kind] % len(SITES)]
                turns[cell.kind] += 1
            else:
                place = ALONE
            self._waiting[place, cell.kind].append(cell)

    def take(self, place: str, kind: str) -> Cell | None:
        """The next cell of a kind, if there is one left for ``place``."""
        waiting = self._waiting[place, kind]
        return waiting.popleft() if waiting else None

    def left(self, place: str, *kinds: str) -> bool:
        """Whether there are cells of these kinds for ``place``."""
        return any(self._waiting[place, kind] for kind in kinds)

    async def outcome(self, cell: Cell) -> Outcome:
        """What came of a cell; raises what is wrong with it."""
        return await asyncio.shield(self._outcomes[cell])

    def settle(self, cell: Cell, outcome: Outcome) -> None:
        """That is what came of it."""
        self._outcomes[cell].set_result(outcome)

    def spoil(self, cell: Cell, error: BaseException) -> None:
        """It did not hold."""
        if not self._outcomes[cell].done():
            self._outcomes[cell].set_exception(error)
            self._outcomes[cell].exception()  # marks it as seen: a selection of tests may not ask for it

    def all_settled(self) -> bool:
        """Whether there is an outcome of every cell."""
        return all(outcome.done() for outcome in self._outcomes.values())

    def give_up(self, error: BaseException) -> None:
        """None of those that are left will be run."""
        for cell in self._outcomes:
            self.spoil(cell, error)
