"""Directories that were there before: read, never written to."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from schemas.brokers import Existing
from schemas.problems import CalqueError, invalid, permanent

_FORM = "write file:///ABSOLUTE/PATH, with %XX for what URLs can't hold"


def existing_tree(existing: Existing, *, ours: Path) -> Path:
    """The directory that the URL names, which must not lie in or around ``ours``. Raises :class:`CalqueError`;
    whether it can be read is another question."""
    parts = urlsplit(existing.url)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or not path.is_absolute():
        raise CalqueError(invalid("attach", "that is no URL of a directory", _FORM))
    if "\0" in str(path) or ".." in path.parts or path == Path("/"):
        raise CalqueError(invalid("attach", "that path can't be attached", "name one directory"))
    real, own = Path(os.path.realpath(path)), Path(os.path.realpath(ours))
    if real == own or real.is_relative_to(own) or own.is_relative_to(real):
        raise CalqueError(invalid("attach", "the broker's own volumes lie there", "name another directory"))
    return path


def check_tree(path: Path) -> None:
    """Raises :class:`CalqueError` unless it is a directory that this process may read. Blocks."""
    if not path.is_dir():
        raise CalqueError(
            permanent("not_found", f"{path} is no directory here", field="attach", remedy="correct the path")
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise CalqueError(
            permanent(
                "not_permitted", f"{path} can't be read", field="attach", remedy="let the broker's user read all of it"
            )
        )
