"""Finding what has a text in it, among many: all of them in one string, and what changed since beside it."""

from __future__ import annotations

from bisect import bisect_right

JOINED_ANEW = 1000
"""After so many changes all are joined again."""
BETWEEN = "\0"


class Texts:
    """The text of each id."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._joined = ""
        self._ids: list[str] = []
        self._starts: list[int] = []
        self._changed: set[str] = set()

    def take(self, id: str, text: str) -> None:
        """This is the text of ``id`` now."""
        self._texts[id] = text
        self._changed.add(id)

    def forget(self, id: str) -> None:
        """There is no ``id`` any more."""
        self._texts.pop(id, None)
        self._changed.add(id)

    def with_text(self, part: str, *, most: int) -> list[str] | None:
        """The ids with ``part`` in their text; ``None`` when there are more than ``most``."""
        self.join()
        found = [id for id in self._changed if part in self._texts.get(id, "")]
        at = self._joined.find(part)
        while at >= 0:
            place = bisect_right(self._starts, at) - 1
            id = self._ids[place]
            if id not in self._changed:
                found.append(id)
            if len(found) > most:
                return None
            if place + 1 == len(self._starts):
                break
            at = self._joined.find(part, self._starts[place + 1])
        return found if len(found) <= most else None

    def join(self) -> None:
        """Join all anew, if enough changed; else the next question does."""
        if len(self._changed) <= JOINED_ANEW:
            return
        self._ids, self._starts = list(self._texts), []
        at = 0
        for text in self._texts.values():
            self._starts.append(at)
            at += len(text) + len(BETWEEN)
        self._joined = BETWEEN.join(self._texts.values())
        self._changed.clear()
