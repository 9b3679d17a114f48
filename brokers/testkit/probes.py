"""Use of a data service through its binding, as an app would: small texts by key, by type of data service."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Protocol

from brokers.testkit.checks import NotApplicable
from schemas.brokers import Bound


class Probe(Protocol):
    """One way to use a data service. What is wrong comes out as the exception of its library.

    ``keeps`` is false for one that keeps nothing which could be read back.
    """

    keeps: bool

    async def write(self, bound: Bound, key: str, text: str) -> None:
        """Keep ``text`` under ``key``."""

    async def read(self, bound: Bound) -> dict[str, str]:
        """All texts by key."""

    async def opens(self, bound: Bound) -> bool:
        """Whether the binding gives access now."""


class FilesProbe:
    """A directory: the binding's attribute ``path``."""

    keeps = True

    async def write(self, bound: Bound, key: str, text: str) -> None:
        """A file per key."""
        await asyncio.to_thread((self._directory(bound) / key).write_text, text)

    async def read(self, bound: Bound) -> dict[str, str]:
        """All files at the top."""
        directory = self._directory(bound)
        return await asyncio.to_thread(lambda: {p.name: p.read_text() for p in directory.iterdir() if p.is_file()})

    async def opens(self, bound: Bound) -> bool:
        """Whether the directory is there under the binding's path."""
        return await asyncio.to_thread(self._directory(bound).is_dir)

    def _directory(self, bound: Bound) -> Path:
        return Path(bound.attributes["path"])


def probe_for(type: str) -> Probe:
    """The probe of a type of data service. Raises NotApplicable when there is none, or its library is missing."""
    if type in ("volume", "other"):
        return FilesProbe()
    modules = {"database": "postgres_probe", "objectstore": "objects_probe", "messaging": "messaging_probe"}
    if type not in modules:
        raise NotApplicable(f"the kit can't use a data service of type {type}")
    try:
        module = importlib.import_module(f"brokers.testkit.{modules[type]}")
    except ImportError as error:
        raise NotApplicable(f"to use a {type}, {error.name} must be installed") from None
    made: Probe = module.PROBE
    return made
