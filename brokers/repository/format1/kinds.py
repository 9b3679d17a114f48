"""The kinds of objects that a repository of format 1 consists of (`docs/repository-format.md`, "The store")."""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """A kind of object, by what its names begin with; `format` is the whole name."""

    FORMAT = "format"
    RECIPIENT = "recipients/"
    PACK = "packs/"
    INDEX = "index/"
    COMMIT = "copies/"
    IMAGE = "images/"
    HOLD = "holds/"
    MARK = "doomed/"
    GONE = "gone/"


def kind_of(name: str) -> Kind | None:
    """The kind of the object of this name; `None` for one that is no part of a repository."""
    folder, slash, _ = name.partition("/")
    try:
        return Kind(folder + slash)
    except ValueError:
        return None
