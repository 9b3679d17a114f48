"""Lines of logs as people read them, whether a process wrote text or JSON; and those of one operation, in order."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hub.stack.logfiles import every_line

KNOWN = ("time", "level", "logger", "message", "process", "site", "operation", "correlation", "trace", "error")


class Line(NamedTuple):
    """One line of the log of ``part``; ``record`` is what a line of JSON says, empty for any other."""

    part: str
    text: str
    record: dict[str, Any]

    @property
    def shown(self) -> str:
        """The line for people."""
        record = self.record
        if not record:
            return self.text
        about = [f"{name}={record[name]}" for name in ("operation", "correlation") if record.get(name)]
        words = [
            str(record.get("time", "")),
            str(record.get("level", "")).upper(),
            str(record.get("logger", "")),
            str(record.get("message", "")),
            *([f"[{' '.join(about)}]"] if about else []),
            *([" | ".join(str(record["error"]).splitlines())] if record.get("error") else []),
        ]
        return " ".join(word for word in words if word)

    def document(self) -> dict[str, Any]:
        """The line for programs."""
        return {"part": self.part, "line": self.text, **({"record": self.record} if self.record else {})}

    def of(self, operation: str) -> bool:
        """Whether it belongs to an operation, or to what the operation had done elsewhere. A line of text that names
        it counts."""
        said = {str(self.record.get(name, "")).partition("/")[0] for name in ("operation", "correlation")}
        return operation in said or operation in self.text


def read(part: str, text: str) -> Line:
    """One line as it stands in a log."""
    if text.startswith("{"):
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if isinstance(record, dict) and "message" in record:
            return Line(part, text, record)
    return Line(part, text, {})


def of_operation(files: Mapping[str, Path], operation: str) -> Iterator[Line]:
    """The lines of ``operation`` in the logs of all parts, by their time."""
    return heapq.merge(*(_lines(part, file, operation) for part, file in files.items()), key=_time)


def _lines(part: str, file: Path, operation: str) -> Iterable[Line]:
    found = (read(part, text) for text in every_line(file) if operation in text)
    return [line for line in found if line.of(operation)]


def _time(line: Line) -> str:
    return str(line.record.get("time", ""))
