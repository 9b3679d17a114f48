"""Threads that go on one at a time, in an order that follows from a seed: what they do comes again in every run."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

PATIENCE_SECONDS = 240.0


class Pace(NamedTuple):
    """How often one of its calls comes late, and by how many calls of all at most."""

    often: float = 0.03
    late: int = 300


class _Runner:
    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.after = 0
        self.gate = threading.Semaphore(0)
        self.ended = False
        self.problem: BaseException | None = None


class Turns:
    """Who has the turn runs until it gives the turn on: at each call of `pass_on`, and at its end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.passed = 0
        self.order: list[str] = []
        """Who was given the turn, one after the other."""
        self._runners: dict[str, _Runner] = {}
        self._over = threading.Semaphore(0)

    def run(self, works: Mapping[str, Callable[[], None]], *, paces: Mapping[str, Pace]) -> None:
        """Runs all works to their ends. Raises the first problem of one of them."""
        self._runners = {name: _Runner(paces.get(name, Pace())) for name in works}
        threads = [threading.Thread(target=self._run, args=(name, work)) for name, work in works.items()]
        for thread in threads:
            thread.start()
        self._runners[self._next()].gate.release()
        assert self._over.acquire(timeout=PATIENCE_SECONDS), "nobody gives the turn on any more"
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        for runner in self._runners.values():
            if runner.problem is not None:
                raise runner.problem

    def pass_on(self, name: str) -> None:
        """Lets others go first. Who is not run here goes on."""
        mine = self._runners.get(name)
        if mine is None or mine.ended:
            return
        self.passed += 1
        pace = mine.pace
        mine.after = self.passed + (self.random.randrange(pace.late) if self.random.random() < pace.often else 0)
        following = self._next()
        if following != name:
            self._runners[following].gate.release()
            assert mine.gate.acquire(timeout=PATIENCE_SECONDS), "the turn never comes back"

    def _run(self, name: str, work: Callable[[], None]) -> None:
        mine = self._runners[name]
        mine.gate.acquire()
        try:
            work()
        except BaseException as error:
            mine.problem = error
        mine.ended = True
        if all(runner.ended for runner in self._runners.values()):
            self._over.release()
        else:
            self._runners[self._next()].gate.release()

    def _next(self) -> str:
        living = {name: runner for name, runner in self._runners.items() if not runner.ended}
        ready = [name for name, runner in living.items() if runner.after <= self.passed]
        chosen = self.random.choice(ready) if ready else min(living, key=lambda name: living[name].after)
        self.order.append(chosen)
        return chosen
