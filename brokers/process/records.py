"""What the broker remembers of each service, so that it can be killed at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from brokers.process.processes import ProcessId
from brokers.sdk.atomic import write_atomically
from schemas.values import ServiceSpec

Desired = Literal["running", "stopped", "replacing", "removed"]


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A pause: which run was frozen, until when (seconds of this boot's monotonic clock), and who guards it.

    ``held`` is its outcome: ``None`` while it lasts.
    """

    id: str
    run: str
    boot: str
    deadline: float
    guard: ProcessId
    acknowledged: bool = False
    held: bool | None = None


class Quiesce(msgspec.Struct, frozen=True, kw_only=True):
    """A quiesce that the service was asked for; ``deadline`` counts from before that. ``held`` is the answer of the
    thaw that ended it, and ``broken`` why it was not unbroken."""

    id: str
    operation: str
    run: str
    boot: str
    deadline: float
    acknowledged: bool = False
    held: bool | None = None
    broken: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One process that runs (or ran) the service; written by the process itself, see ``launcher``."""

    run: str
    pid: int
    start: int
    boot: str

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.start, self.boot)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One service: its content (``secrets`` is a box of the vault) and what should be.

    ``content`` is the keyed digest of all that a process depends on; ``deployed`` says that it was healthy once with
    this content; ``failure`` why it does not run.
    """

    instance: str
    service: str
    spec: ServiceSpec
    environment: dict[str, str]
    secrets: bytes
    labels: dict[str, str]
    content: str
    artifact_digest: str
    port: int | None
    desired: Desired
    deployed: bool = False
    failure: str = ""
    restarts: int = 0
    pause: Pause | None = None
    quiesce: Quiesce | None = None
    format: int = 1


_records = msgspec.json.Decoder(Record)
_runs = msgspec.json.Decoder(Run)


def load_record(path: Path) -> Record | None:
    """The record at ``path``. Raises ``msgspec.DecodeError`` for one that nobody of ours wrote."""
    try:
        return _records.decode(path.read_bytes())
    except FileNotFoundError:
        return None


def save_record(path: Path, record: Record) -> None:
    """Keep ``record``, durably."""
    write_atomically(path, msgspec.json.encode(record))


def load_run(path: Path) -> Run | None:
    """The run that a launcher put on record."""
    try:
        return _runs.decode(path.read_bytes())
    except FileNotFoundError:
        return None
