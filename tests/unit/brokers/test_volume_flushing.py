"""What is written to a volume comes to the disk while more is written."""

import errno
import threading
from collections.abc import Iterator

import pytest

from brokers.volume import flushing
from brokers.volume.flushing import FLUSH_BYTES, Flusher

SECONDS = 60.0


class Disk:
    """A file system that syncs when it is let, and counts."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let = threading.Event()
        self.let.set()
        self.syncs = 0
        self.fails: OSError | None = None

    def sync(self, _: int) -> None:
        self.begun.release()
        assert self.let.wait(SECONDS)
        self.syncs += 1
        if self.fails is not None:
            error, self.fails = self.fails, None  # it is told once
            raise error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(flushing, "sync_filesystem", found.sync)
    return found


@pytest.fixture
def flusher(disk: Disk) -> Iterator[Flusher]:
    made = Flusher(-1)
    yield made
    disk.let.set()
    made.stop()


def test_much_is_brought_to_the_disk_before_the_end_and_the_rest_at_the_end(disk: Disk, flusher: Flusher) -> None:
    for _ in range(3):
        flusher.wrote(FLUSH_BYTES)
        assert disk.begun.acquire(timeout=SECONDS)
    flusher.wrote(1)
    flusher.finish()
    assert disk.syncs == 4


def test_little_is_synced_once(disk: Disk, flusher: Flusher) -> None:
    flusher.wrote(FLUSH_BYTES - 1)
    flusher.finish()
    assert disk.syncs == 1


def test_writing_does_not_wait_for_the_disk_and_stopping_does(disk: Disk, flusher: Flusher) -> None:
    disk.let.clear()
    flusher.wrote(FLUSH_BYTES)
    assert disk.begun.acquire(timeout=SECONDS)
    flusher.wrote(FLUSH_BYTES)
    stopping = threading.Thread(target=flusher.stop)
    stopping.start()
    assert stopping.is_alive(), "the descriptor is still used"
    disk.let.set()
    stopping.join(SECONDS)
    assert not stopping.is_alive()
    assert disk.syncs == 1, "nobody wants the rest any more"


def test_what_the_disk_told_on_the_way_is_the_outcome(disk: Disk, flusher: Flusher) -> None:
    disk.fails = OSError(errno.EIO, "bad disk")
    flusher.wrote(FLUSH_BYTES)
    assert disk.begun.acquire(timeout=SECONDS)
    with pytest.raises(OSError, match="bad disk"):
        flusher.finish()
