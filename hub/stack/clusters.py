"""Which sites of a stack have a Kubernetes platform, and what its broker is told of the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hub.stack.errors import StackError

USER = "psb-kubernetes"


def chosen(wishes: Iterable[str], *, sites: Iterable[str]) -> Mapping[str, dict[str, Any]]:
    """What ``[SITE=]FILE`` say: the settings in a JSON file, for one site or, without one, for all of them. A relative
    ``kubeconfig`` in it is beside the file.

    Raises :class:`StackError` for an unknown site, and for a file that can't be read.
    """
    names = tuple(sites)
    found: dict[str, dict[str, Any]] = {}
    for wish in wishes:
        site, separator, file = wish.rpartition("=")
        if separator and site not in names:
            raise StackError(f"kubernetes {wish}: the stack has no site {site!r}; it has {', '.join(names)}")
        for each in (site,) if separator else names:
            found[each] = _read(Path(file))
    return found


def absolute(wish: str) -> str:
    """The same wish for a program that runs in another directory."""
    site, separator, file = wish.rpartition("=")
    return f"{site}{separator}{Path(file).absolute()}"


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise StackError(f"kubernetes {file}: {error.strerror}") from None
    except ValueError as error:
        raise StackError(f"kubernetes {file}: it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise StackError(f"kubernetes {file}: it is no JSON object of settings")
    if isinstance(found.get("kubeconfig"), str):
        found["kubeconfig"] = str(file.absolute().parent / found["kubeconfig"])
    return found
