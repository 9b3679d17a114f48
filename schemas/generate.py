"""Writes the published schemas: ``python -m schemas.generate``; with ``--check`` it only compares.

``schemas/generated/json/<type>.json`` per message type and ``envelope.json``, ``json/index.json``, and
``asyncapi.json``. Exit code 1 with the names of the files when ``--check`` finds others than the types make.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.asyncapi import document, subject_of
from schemas.json_schemas import ENVELOPE, all_schemas

DIRECTORY = Path(__file__).parent / "generated"


def documents() -> dict[str, str]:
    """Every published file by its path below the directory."""
    schemas = all_schemas()
    subjects = subject_of()
    index = {
        "envelope": f"{ENVELOPE}.json",
        "types": {
            name: {
                "schema": f"{name}.json",
                **({"subject": subjects[name]} if name in subjects else {}),
                "description": schema.get("description", "").partition("\n\n")[0].replace("\n", " "),
            }
            for name, schema in schemas.items()
            if name != ENVELOPE
        },
    }
    files = {f"json/{name}.json": _text(schema) for name, schema in schemas.items()}
    return {**files, "json/index.json": _text(index), "asyncapi.json": _text(document())}


def differences(directory: Path = DIRECTORY) -> list[str]:
    """The files below ``directory`` that are missing, too many, or not what the types make."""
    wanted = documents()
    there = {file.relative_to(directory).as_posix() for file in directory.rglob("*.json")}
    wrong = {name for name, text in wanted.items() if name in there and (directory / name).read_text() != text}
    return sorted(wrong | (wanted.keys() ^ there))


def write(directory: Path = DIRECTORY) -> None:
    """Make ``directory`` what it should be."""
    wanted = documents()
    for file in directory.rglob("*.json"):
        if file.relative_to(directory).as_posix() not in wanted:
            file.unlink()
    for name, text in wanted.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description="Write the published schemas.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when they differ from the types")
    if not parser.parse_args(arguments).check:
        write()
        return 0
    found = differences()
    for name in found:
        print(f"schemas/generated/{name} is not what the types make; run: make generate", file=sys.stderr)
    return 1 if found else 0


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
