"""Writes what the program says into ``docs/tour.md``: ``python -m tests.e2e.tour``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.e2e.tour.test_tour import DIRECTORY, PAGE
from tests.e2e.tour.walk import rewritten, walk


def main() -> None:
    """Take the tour and write it down."""
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        try:
            taken = []
            for walked in walk(page, home=home, directory=DIRECTORY):
                taken.append(walked)
                print(f"{walked.code:>3}  {walked.step.command}", flush=True)
        finally:
            subprocess.run(
                [sys.executable, "-m", "hub.cli.main", "down", "--home", str(home)], check=False, capture_output=True
            )
    PAGE.write_text(rewritten(page, taken))


if __name__ == "__main__":
    main()
