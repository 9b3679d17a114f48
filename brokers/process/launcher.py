"""What runs in a service's process before the service: says who it is, then becomes the service.

The run is put on record by the process itself, before the first instruction of the service. So a broker that is
killed at any point of a start finds out afterwards whether the service runs: it waits for the start's lock, which
this process holds (as descriptor 3) until it has become the service, and reads the record.

Standard library only; started with ``python -I -S``.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from brokers.process import processes

LOCK_DESCRIPTOR = 3
CANNOT_RUN = 127


def main(arguments: list[str]) -> None:
    """``arguments``: the run's id, the file of the record, the working directory, and the command."""
    run, record, directory, *command = arguments
    os.set_inheritable(LOCK_DESCRIPTOR, False)
    process = processes.identify(os.getpid())
    if process is None:
        raise SystemExit("/proc shows no processes; the process platform needs it")
    _write(record, {"run": run, **process._asdict()})
    # Python ignores these, and what is ignored stays so in the command.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.chdir(directory)
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - the template's command, without a shell
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]!r}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(CANNOT_RUN)


def _write(path: str, content: dict[str, object]) -> None:
    # Durable as far as a crash of the broker goes; after a power cut no process is left to be found.
    temporary = f"{path}.new"
    with open(temporary, "w") as file:  # noqa: PTH123 - pathlib would take longer to import than all the rest
        json.dump(content, file)
    os.replace(temporary, path)  # noqa: PTH105
