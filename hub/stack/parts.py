"""What a part of the stack is: a program to be kept running, and how to know and end it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hub.stack.probes import ReadyCheck

Prepare = Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One program of the stack. Durations are in seconds.

    `prepare` runs before every start, also before a restart, and `after_stop` after the part was told
    to stop and has; both must bear repetition. `depends`
    names parts that must be ready before this one is started and that are stopped only after it.
    `user` and `group` are numeric ids to run as; None keeps the supervisor's own. Secrets go into
    files or `env`, never into `argv`.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    user: int | None = None
    group: int | None = None
    prepare: Prepare | None = None
    after_stop: Callable[[], None] | None = None
    ready: ReadyCheck | None = None
    ready_timeout: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace: float = 5.0
    depends: tuple[str, ...] = ()
