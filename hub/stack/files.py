"""Files that a crash leaves either old or new, never half written."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


def write_atomic(path: Path, content: bytes | str, *, mode: int = PRIVATE_FILE) -> None:
    """Write beside the target, sync, rename over it and sync the directory."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, *, mode: int = PRIVATE_FILE) -> None:
    """Write a JSON document atomically, indented, since people read these files too."""
    write_atomic(path, json.dumps(value, indent=2) + "\n", mode=mode)


def read_json(path: Path) -> Any | None:
    """The document, or None when there is no such file. Raises `json.JSONDecodeError` when it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def private_directory(path: Path) -> Path:
    """Make the directory, and those above it that are missing, closed to other users."""
    if not path.is_dir():
        # Path.mkdir(parents=True) would leave the ones above open.
        private_directory(path.parent)
        path.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    return path
