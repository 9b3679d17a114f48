"""The pages that are made from the program: ``python -m hub.cli.pages [--check] [DIRECTORY]``.

Exit code 1 with the names of the pages when ``--check`` finds others than the program makes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hub.cli.errors_page import errors_page
from hub.cli.messages_page import messages_page
from hub.cli.metrics_page import metrics_page
from hub.cli.reference import reference
from hub.cli.sdk_page import sdk_page

DIRECTORY = Path(__file__).resolve().parents[2] / "docs"


def pages() -> dict[str, str]:
    """Each page by its file name."""
    return {
        "cli.md": reference(),
        "messages.md": messages_page(),
        "errors.md": errors_page(),
        "sdk.md": sdk_page(),
        "metrics.md": metrics_page(),
    }


def differences(directory: Path) -> list[str]:
    """The pages that are missing or not what the program makes."""
    return [
        name
        for name, text in pages().items()
        if not (directory / name).is_file() or (directory / name).read_text() != text
    ]


def main(arguments: Sequence[str]) -> int:
    """Write or compare; 0 when in step, 1 when not, 2 for wrong usage."""
    check = list(arguments[:1]) == ["--check"]
    rest = list(arguments)[check:]
    if len(rest) > 1:
        sys.stderr.write("usage: python -m hub.cli.pages [--check] [DIRECTORY]\n")
        return 2
    directory = Path(rest[0]) if rest else DIRECTORY
    stale = differences(directory)
    if check:
        for name in stale:
            sys.stderr.write(f"{directory / name} is not what the program makes; run: make generate\n")
        return 1 if stale else 0
    for name in stale:
        (directory / name).write_text(pages()[name])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
