"""The guard of one pause: lets a frozen service go on at the deadline, whatever became of the broker.

It is started before the service is frozen, in a session of its own. At the deadline it first says so in a file, so
that nobody takes the hold for unbroken, and then sends SIGCONT. A broker that resumes in time kills it first.

Standard library only; started with ``python -I -S``.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from brokers.process import processes

READY = b"ready\n"


def main(arguments: list[str]) -> None:
    """``arguments``: pid and start time of the leader, the service's home, the file to write when the deadline has
    passed, and the deadline (seconds of the monotonic clock)."""
    pid, start, home, mark, deadline = arguments
    leader = processes.ProcessId(int(pid), int(start), processes.boot_id())
    os.write(sys.stdout.fileno(), READY)
    while (left := float(deadline) - time.monotonic()) > 0:
        select.select((), (), (), left)
    with open(mark, "w") as file:  # noqa: PTH123 - pathlib would take longer to import than all the rest
        file.write("the deadline passed\n")
    processes.ServiceProcesses(leader=leader, home=home).signal(signal.SIGCONT)
