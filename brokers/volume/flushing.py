"""Brings to the disk what is being written, while more of it is written: else all of it waits for the last sync.

The kernel begins to write by itself only when a tenth of the memory is full of what it has to write, or after half a
minute.
"""

from __future__ import annotations

import threading

from brokers.volume.linux import sync_filesystem

FLUSH_BYTES = 128 << 20
"""What is written before it is brought to the disk."""


class Flusher:
    """For one file system, by a thread of its own that begins when there is enough. Threads may share it."""

    def __init__(self, descriptor: int) -> None:
        """An open file there; it must stay open until :meth:`stop` returned."""
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._waiting = 0
        self._over = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None

    def wrote(self, count: int) -> None:
        """So many bytes more were written. Never waits for the disk."""
        with self._changed:
            self._waiting += count
            if self._waiting < FLUSH_BYTES or self._over:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """Nothing is brought to the disk any more once this returns. Again is no change."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """All was written: bring the rest to the disk. Raises ``OSError`` when that fails, or when it did before: the
        system tells so only once."""
        self.stop()
        if self._error is not None:
            raise self._error
        sync_filesystem(self._descriptor)

    def _run(self) -> None:
        while self._next():
            try:
                sync_filesystem(self._descriptor)
            except OSError as error:
                self._error = error
                return

    def _next(self) -> bool:
        with self._changed:
            while self._waiting < FLUSH_BYTES and not self._over:
                self._changed.wait()
            self._waiting = 0
            return not self._over
