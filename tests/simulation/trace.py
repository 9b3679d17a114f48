"""What happened in a run: the trace that a failing seed prints, and which faults hit what how often."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec

from tests.simulation.faults import KINDS
from tests.simulation.loop import START_SECONDS

Line = tuple[float, str, str, str, tuple[object, ...]]

FAULT, PLAIN = "!!", ""
LEGEND = (
    "Virtual seconds since the start; !! marks a fault; then who did it, and what. Hubs and agents 'record' events",
    "in the stream of their writer; brokers and agents are named <site>/<kind>/<name>; cN is the client's N-th command",
    "and the operation that it starts, iN an instance, mN an image, fN one that a stranger put there.",
)
TOLD = (
    "kind", "target", "name", "data_service", "service", "step", "attempt", "final", "state", "site", "copy",
    "repository", "image", "cleanup",
)  # fmt: skip
MOST_LINES = 80


class Told:
    """An event as a person reads it; put together when somebody does."""

    def __init__(self, subject: str, payload: bytes) -> None:
        self._subject = subject
        self._payload = payload

    def __str__(self) -> str:
        _, _, _, aggregate, id, event = self._subject.split(".", 5)
        envelope: dict[str, Any] = msgspec.json.decode(self._payload)
        data: dict[str, Any] = envelope["data"] or {}
        words = [f"{name}={data[name]}" for name in TOLD if isinstance(data.get(name), str | int | bool)]
        if problem := data.get("problem"):
            words.append(f"problem: {problem['code']}: {problem['message']}")
        return f"{aggregate} {id} {event.upper()} {' '.join(words)}".rstrip() + f"  [{envelope['id']}]"


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
        self._lines.append((self._clock(), PLAIN, who, what, about))

    def recorded(self, who: str, subject: str, payload: bytes) -> None:
        """``who`` stored an event."""
        self._lines.append((self._clock(), PLAIN, who, "records", (Told(subject, payload),)))

    def hit(self, fault: str, where: str, *, who: str = "fate") -> None:
        """A fault struck."""
        assert fault in KINDS, f"{fault} is in no table of the report"
        self.hits[fault, where] += 1
        self._lines.append((self._clock(), FAULT, who, fault.upper(), (where,)))

    def lines(self) -> Iterator[str]:
        """Text, oldest first."""
        for time, mark, who, what, about in self._lines:
            yield f"{time - START_SECONDS:10.4f} {mark:<2} {who:<18} {what} {' '.join(map(str, about))}".rstrip()

    def about(self, names: Collection[str]) -> list[str]:
        """The lines that mention one of these ids, and the kills, the earliest left out if there are many."""
        if not names:
            return []
        pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(re.escape(name) for name in sorted(names))})(?![\w-])")
        found = [line for line in self.lines() if pattern.search(line)]
        left = len(found) - MOST_LINES
        return found if left <= 0 else [f"  ... {left} earlier lines", *found[left:]]

    def digest(self) -> str:
        """The same for two runs in which the same happened at the same times in the same order."""
        found = hashlib.sha256()
        for line in self.lines():
            found.update(line.encode())
        return found.hexdigest()


_IDS = re.compile(r"(?<![\w/@-])(?:[cimf]\d+|[0-9a-f]{8}-[0-9a-f-]{27})(?![\w-])")


def ids_in(complaint: str) -> list[str]:
    """The commands, operations, instances, images and copies that a complaint is about; the first few of them."""
    return list(dict.fromkeys(_IDS.findall(complaint)))[:4]
