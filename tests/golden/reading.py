"""The recorded folders."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from tests.golden.recording import Line

FOLDER = Path(__file__).parent / "events"


def versions() -> list[str]:
    """The versions that have a folder, oldest first."""
    found = [path.name for path in FOLDER.iterdir() if path.is_dir()]
    return sorted(found, key=lambda version: [int(number) for number in version.split(".")])


def types_of(version: str) -> list[Line]:
    """The lines of its ``types.jsonl``."""
    return [json.loads(line) for line in (FOLDER / version / "types.jsonl").read_text().splitlines()]


def types_recorded() -> set[str]:
    """Every event type in any folder."""
    return {line["envelope"]["type"] for version in versions() for line in types_of(version)}


def histories() -> list[tuple[str, int]]:
    """Version and number of each history."""
    return [
        (version, int(path.name.split("-")[1].split(".")[0]))
        for version in versions()
        for path in sorted((FOLDER / version).glob("history-*.jsonl.xz"))
    ]


def history(version: str, number: int) -> list[Line]:
    """The events of a history."""
    text = lzma.decompress((FOLDER / version / f"history-{number}.jsonl.xz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


def expected(version: str, number: int) -> dict[str, Any]:
    """What that version made of it."""
    found: dict[str, Any] = json.loads((FOLDER / version / f"expected-{number}.json").read_text())
    return found
