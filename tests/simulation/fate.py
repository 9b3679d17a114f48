"""Fate: what goes wrong in a run, and how often. All of it follows from the seed; after :meth:`Fate.heal` nothing
goes wrong any more, so that what was begun can end and be judged."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from tests.simulation.trace import Trace


class Profile(NamedTuple):
    """How likely things go wrong: ``broker`` at each point of a broker's work, ``message`` per message on the bus,
    ``store`` per append, ``queue`` per delivery; ``kills``, ``cuts``, ``jumps`` and ``stalls`` per run, on average."""

    broker: float
    message: float
    store: float
    queue: float
    kills: float
    cuts: float
    jumps: float
    stalls: float


PROFILES: tuple[Profile, ...] = (
    Profile(broker=0.0, message=0.0, store=0.0, queue=0.0, kills=0.0, cuts=0.0, jumps=0.0, stalls=0.0),
    Profile(broker=0.02, message=0.005, store=0.01, queue=0.02, kills=2.0, cuts=0.5, jumps=0.3, stalls=0.5),
    Profile(broker=0.0, message=0.01, store=0.03, queue=0.05, kills=5.0, cuts=0.5, jumps=0.2, stalls=1.0),
    Profile(broker=0.05, message=0.0, store=0.0, queue=0.0, kills=0.0, cuts=0.0, jumps=0.0, stalls=0.0),
    Profile(broker=0.03, message=0.02, store=0.03, queue=0.05, kills=4.0, cuts=1.5, jumps=1.0, stalls=1.0),
    Profile(broker=0.12, message=0.03, store=0.05, queue=0.05, kills=6.0, cuts=1.0, jumps=0.5, stalls=1.0),
    Profile(broker=0.01, message=0.0, store=0.0, queue=0.1, kills=1.0, cuts=3.0, jumps=2.0, stalls=2.0),
)


LATE_SECONDS = 0.5
OFTEN = frozenset({"info", "describe", "status", "list", "images"})
"""What watches ask for: were it struck like the rest, most faults would go there."""


class Fate:
    """Draws the faults. Each kind of choice has a generator of its own, so that one more of one kind does not change
    all that follow of another."""

    def __init__(self, seed: int, trace: Trace) -> None:
        self.trace = trace
        self.network = Random(f"{seed}-network")
        self.faults = Random(f"{seed}-faults")
        self.plans = Random(f"{seed}-plans")
        self.workload = Random(f"{seed}-workload")
        self.attaching = Random(f"{seed}-attaching")
        self.profile = PROFILES[self.plans.randrange(len(PROFILES))]
        self.healed = False
        self.calm = False
        """Nothing happens but what a story makes happen."""
        self.events = 0
        self.snapshots = self.plans.random() < 0.4
        """Whether the hubs of this run write snapshots, and start from them."""

    def heal(self) -> None:
        """Nothing goes wrong from here on."""
        self.healed = True
        self.trace.note("fate", "healed")

    def strikes(self, rate: float) -> bool:
        """Whether something goes wrong now."""
        return not self.healed and rate > 0.0 and self.faults.random() < rate

    def request_strikes(self, operation: str) -> bool:
        """Whether something goes wrong with a request: seldom with those that are made all the time."""
        rate = self.profile.message
        return self.strikes(rate / 4 if operation in OFTEN else rate * 2)

    def delay(self) -> float:
        """Seconds that a message takes on a sound network."""
        return 0.0005 + self.network.random() * 0.004

    def lag(self, writer: str) -> float:
        """Seconds until an event of one writer is in the stream of all."""
        late = self.network.random() >= 0.9 and not self.calm
        seconds = 0.002 + self.network.random() * (2.0 if late else 0.02)
        if seconds > LATE_SECONDS and not self.healed:
            self.trace.hit("events late", writer)
        return seconds

    def times(self, mean: float) -> int:
        """How often something happens in a run."""
        return sum(1 for _ in range(int(mean * 4)) if self.plans.random() < 0.25) if mean else 0
