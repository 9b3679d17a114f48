"""``python -m tests.golden``: record the events of a version, or add those of a new type.

python -m tests.golden record VERSION [--checkout DIRECTORY]    a folder, by the code in DIRECTORY (default: this)
python -m tests.golden add                                      types that are in no folder yet, to this version's
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from schemas.brokers import SERVICE_VERSION
from tests.golden import recording
from tests.golden.reading import FOLDER, types_recorded

ROOT = Path(__file__).parents[2]


def record(version: str, *, checkout: Path) -> None:
    """Make the folder of ``version`` anew, on the code of ``checkout``."""
    folder = FOLDER / version
    if folder.exists():
        sys.exit(f"{folder} exists: what a released version wrote is not recorded again")
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    script = Path(recording.__file__).read_bytes()
    with tempfile.TemporaryDirectory() as place:
        alone = Path(place) / "recording.py"  # beside nothing of this version that its imports could find first
        alone.write_bytes(script)
        subprocess.run([sys.executable, str(alone), str(folder)], cwd=checkout, env=environment, check=True)


def add() -> None:
    """Add samples of the types that no folder has."""
    known = types_recorded()
    new = [line for line in recording.lines_of_types() if line["envelope"]["type"] not in known]
    if not new:
        print("every event type is recorded")
        return
    folder = FOLDER / SERVICE_VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "types.jsonl").open("a") as file:
        file.writelines(json.dumps(line, sort_keys=True) + "\n" for line in new)
    print(f"added to {SERVICE_VERSION}: {', '.join(sorted({line['envelope']['type'] for line in new}))}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    recorded = verbs.add_parser("record")
    recorded.add_argument("version")
    recorded.add_argument("--checkout", type=Path, default=ROOT)
    verbs.add_parser("add")
    arguments = parser.parse_args()
    if arguments.verb == "record":
        record(arguments.version, checkout=arguments.checkout.resolve())
    else:
        add()


if __name__ == "__main__":
    main()
