"""The trees of the broker and the labels beside them.

trees/<name>           a complete tree
labels/<name>.json     whose it is, and whether it is complete
making/<name>          a tree that is being made
latest/, moments/, trash/ see `latest`, `moments` and `removal`
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from brokers.sdk.atomic import sync_directory, write_atomically
from brokers.volume.latest import Latest
from brokers.volume.linux import boot_id
from brokers.volume.removal import Trash
from brokers.volume.threads import Stop
from schemas.brokers import ResourceDescription

PREFIX = "calque-"
_DIGITS = 24
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{{_DIGITS}}}")


def name_of(service_id: str) -> str:
    """The name of a data service's tree."""
    return PREFIX + hashlib.sha256(service_id.encode()).hexdigest()[:_DIGITS]


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a tree. ``ready`` when it is complete; ``restored_bytes`` of data came from a copy."""

    service_id: str
    labels: dict[str, str] = {}
    plan: str = ""
    restored_bytes: int = 0
    ready: bool = False


class Volumes:
    """All trees below one directory. Calls block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.trees = directory / "trees"
        self.making = directory / "making"
        self.moments = directory / "moments"
        self._trash_directory = directory / "trash"
        self.trash = Trash(self._trash_directory)
        self._labels = directory / "labels"
        self._latest_directory = directory / "latest"
        self.latest = Latest(self._latest_directory, boot=boot_id())

    def open(self) -> None:
        """Make the directories. Raises ``OSError``."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.trees.mkdir(exist_ok=True, mode=0o711)
        for private in (self.making, self.moments, self._trash_directory, self._labels, self._latest_directory):
            private.mkdir(exist_ok=True, mode=0o700)
        self.latest.open()

    def tree(self, service_id: str) -> Path:
        """Where the tree of a data service lies."""
        return self.trees / name_of(service_id)

    def complete(self, service_id: str) -> Labels | None:
        """The labels of a tree that is complete and there."""
        labels = self._read(name_of(service_id))
        if labels is None or not labels.ready or not self.tree(service_id).is_dir():
            return None
        return labels

    def notes(self, service_id: str) -> Path:
        """A file that whoever makes the tree may use."""
        return self.making / f"{name_of(service_id)}.notes"

    def begin(self, labels: Labels) -> Path:
        """A new empty directory to make the tree in. What an earlier try left is taken away."""
        name = name_of(labels.service_id)
        self.abandon(labels.service_id)
        self._write(name, labels)
        making = self.making / name
        making.mkdir(mode=0o700)
        return making

    def abandon(self, service_id: str) -> None:
        """Take a tree away, complete or not, and forget it; its pieces are left for later."""
        name = name_of(service_id)
        self.trash.aside(self.trees / name)
        self.trash.aside(self.making / name)
        self.notes(service_id).unlink(missing_ok=True)
        self.latest.forget(name)
        self._file(name).unlink(missing_ok=True)

    def finish(self, labels: Labels) -> None:
        """Show the tree under its name, whole."""
        name = name_of(labels.service_id)
        (self.making / name).rename(self.trees / name)
        sync_directory(self.trees)
        self._write(name, msgspec.structs.replace(labels, ready=True))

    def remove(self, service_id: str, stop: Stop) -> None:
        """Everything of a data service goes; nothing there is done."""
        name = name_of(service_id)
        self.trash.discard(self.trees / name, stop)
        self.abandon(service_id)

    def describe(self, service_id: str | None) -> tuple[ResourceDescription, ...]:
        """All that is ours and there, also trees that are only half made."""
        names = {path.name for place in (self.trees, self.making) for path in place.iterdir()}
        names |= {path.stem for path in self._labels.glob("*.json")}
        if service_id is not None:
            names &= {name_of(service_id)}
        return tuple(self._description(name) for name in sorted(names) if _NAME.fullmatch(name))

    def _description(self, name: str) -> ResourceDescription:
        labels = self._read(name)
        if labels is None:
            return ResourceDescription(id=name, kind="directory", name=name)
        return ResourceDescription(
            id=labels.service_id,
            kind="directory",
            name=name,
            labels={**labels.labels, "service_id": labels.service_id},
        )

    def _file(self, name: str) -> Path:
        return self._labels / f"{name}.json"

    def _write(self, name: str, labels: Labels) -> None:
        write_atomically(self._file(name), msgspec.json.encode(labels))

    def _read(self, name: str) -> Labels | None:
        try:
            return msgspec.json.decode(self._file(name).read_bytes(), type=Labels)
        except FileNotFoundError:
            return None
