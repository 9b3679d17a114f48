"""``python -m tests.bench.guard DIRECTORY``: when its standard input ends, as it does with whoever holds the other end,
the PostgreSQL servers in the directory are stopped, and the directory is removed.

Servers of the plan ``dedicated`` are nobody's children: nothing else would stop those of a benchmark that was killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STOP_SECONDS = 30.0


@contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """For the time of a benchmark whose servers lie in ``directory``; what is left of it then is removed."""
    guard = subprocess.Popen(
        [sys.executable, "-m", __name__, str(directory)], stdin=subprocess.PIPE, start_new_session=True
    )
    assert guard.stdin is not None
    try:
        yield
    finally:
        guard.stdin.close()
        guard.wait()


def main(directory: Path) -> None:
    """Wait, then clear up."""
    while os.read(sys.stdin.fileno(), 1024):
        continue
    for named in directory.rglob("postmaster.pid"):
        with contextlib.suppress(OSError, ValueError):
            _stop(int(named.read_text().split("\n", 1)[0]), named.parent)
    shutil.rmtree(directory, ignore_errors=True)


def _stop(pid: int, data: Path) -> None:
    """The server that works in ``data``: its number may be another's by now."""
    watched = os.pidfd_open(pid)
    try:
        if not Path(f"/proc/{pid}/cwd").samefile(data):
            return
        for number in (signal.SIGQUIT, signal.SIGKILL):
            signal.pidfd_send_signal(watched, number)
            if select.select([watched], [], [], STOP_SECONDS)[0]:
                return
    finally:
        os.close(watched)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
