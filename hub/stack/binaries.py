"""Where the programs of the servers lie: as the user says, in this environment, or on the PATH."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from hub.stack.errors import StackError


def find_program(name: str, *, given: Path | None = None, package: str) -> Path:
    """Absolute path of an executable. Raises `StackError` that says which package brings it."""
    if given is not None:
        if not (given.is_file() and os.access(given, os.X_OK)):
            raise StackError(f"{given} is no executable file: give the path of {name}, or leave it out")
        return given.resolve()
    for directory in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        candidate = directory / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which(name)
    if found is None:
        raise StackError(f"{name} was not found: install the package {package}, or give its path")
    return Path(found).resolve()
