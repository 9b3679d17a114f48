"""What happened in a run: the trace that a failing seed prints, and which faults hit what how often."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator

from tests.simulation.faults import KINDS
from tests.simulation.loop import START_SECONDS

Line = tuple[float, str, str, tuple[object, ...]]


class Trace:
    """Lines are put together when somebody reads them. ``clock`` is the loop's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lines: list[Line] = []
        self.hits: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._lines)

    def note(self, who: str, what: str, *about: object) -> None:
        """``who`` did ``what``; ``about`` is put behind it."""
        self._lines.append((self._clock(), who, what, about))

    def hit(self, fault: str, where: str, *, who: str = "fate") -> None:
        """A fault struck."""
        assert fault in KINDS, f"{fault} is in no table of the report"
        self.hits[fault, where] += 1
        self._lines.append((self._clock(), who, f"*** {fault}", (where,)))

    def lines(self) -> Iterator[str]:
        """Text, oldest first."""
        for time, who, what, about in self._lines:
            yield f"{time - START_SECONDS:10.4f}  {who:<18} {what} {' '.join(map(str, about))}".rstrip()

    def digest(self) -> str:
        """The same for two runs in which the same happened at the same times in the same order."""
        found = hashlib.sha256()
        for line in self.lines():
            found.update(line.encode())
        return found.hexdigest()
