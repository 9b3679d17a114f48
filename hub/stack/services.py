"""Calque's own processes as parts: the hub, a site's agent, its brokers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from hub.stack.files import private_directory, write_json
from hub.stack.layout import HomeLayout
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK
from hub.stack.probes import file_appears

CONFIG_VARIABLE = "CALQUE_CONFIG"
READY_VARIABLE = "CALQUE_READY_FILE"
INTERPRETER = (sys.executable, "-P", "-m")
"""What a module is started with. -P keeps the working directory out of the import path: the home has a directory
`hub`."""


def service_part(
    name: str,
    *,
    module: str,
    layout: HomeLayout,
    settings: dict[str, Any],
    metrics_port: int,
    depends: tuple[str, ...] = (),
    stop_grace: float = 5.0,
    interpreter: Sequence[str] = INTERPRETER,
) -> Part:
    """`python -m <module>` with its settings file. It is ready when it has written its ready file.

    `interpreter` is the command that the name of the module is added to.
    """
    settings = {**settings, "metrics_listen": f"{LOOPBACK}:{metrics_port}"}
    settings_file, ready_file = layout.settings(name), layout.ready_file(name)

    async def prepare() -> None:
        for directory in (settings_file.parent, ready_file.parent):
            private_directory(directory)
        if "state_dir" in settings:
            private_directory(layout.home / settings["state_dir"])
        write_json(settings_file, settings)
        ready_file.unlink(missing_ok=True)

    return Part(
        name=name,
        argv=(*interpreter, module),
        env={
            CONFIG_VARIABLE: str(settings_file),
            READY_VARIABLE: str(ready_file),
            "PYTHONUNBUFFERED": "1",
        },
        cwd=layout.home,
        prepare=prepare,
        ready=file_appears(ready_file),
        ready_timeout=90.0,
        stop_signal=signal.SIGTERM,
        stop_grace=stop_grace,
        depends=depends,
    )
