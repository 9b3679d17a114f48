"""The volume: letters that wait in ``queue``, those in ``sent``, and a line for each hook in ``marks``."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ["BOX"])
MARKS = ROOT / "marks"


def folder(name: str) -> Path:
    """One of the folders."""
    found = ROOT / name
    found.mkdir(exist_ok=True)
    return found


def names(name: str) -> list[str]:
    """What lies in a folder."""
    return sorted(each.name for each in folder(name).iterdir())


def marks() -> list[str]:
    """The hooks that ran."""
    return MARKS.read_text().split() if MARKS.exists() else []
