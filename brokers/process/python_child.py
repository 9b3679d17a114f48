"""Starting our own small programs: a bare interpreter that imports one module of ours in a few milliseconds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from {module} import main; main(sys.argv[2:])"
_DEFAULT_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


def spawn(
    module: str,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: int,
    errors: int,
    lock: int | None = None,
) -> int:
    """Start ``module``'s ``main`` in a session of its own; the pid. ``output``, ``errors`` and ``lock`` are
    descriptors; the child has them as 1, 2 and 3, and no others. Raises ``OSError``."""
    descriptors: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, errors, 2),
    ]
    if lock is not None:
        descriptors.append((os.POSIX_SPAWN_DUP2, lock, 3))
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", _CODE.format(module=module), _ROOT, *arguments],
        environment,
        file_actions=descriptors,
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )
