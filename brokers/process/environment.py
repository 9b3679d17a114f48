"""The environment of a service: a minimal base, what the instance gives it, and where to listen."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from brokers.process.layout import ServiceFiles
from brokers.process.ports import HOST
from schemas.secrets import Secret
from schemas.values import ServiceSpec

INTERPRETERS = frozenset({"python", "python3"})


def command_of(spec: ServiceSpec) -> list[str]:
    """The command line. ``python`` is the interpreter that runs the broker, whatever PATH says."""
    program, *arguments = spec.artifact.command
    return [program_of(program), *arguments]


def program_of(program: str) -> str:
    """The program that is meant by the first word of a command."""
    return sys.executable if program in INTERPRETERS else program


def environment_of(
    files: ServiceFiles,
    *,
    spec: ServiceSpec,
    plain: Mapping[str, str],
    secrets: Mapping[str, Secret],
    port: int | None,
    artifact: Path | None = None,
) -> dict[str, str]:
    """All that the service finds in its environment. Nothing of the broker's own gets through. ``artifact`` is where
    the artifact lies when it is not in the service's place yet."""
    base = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",  # a line is in the log when it was printed, not some kilobytes later
        "TMPDIR": str(files.temporary),
    }
    if spec.artifact.wheel:
        base["PYTHONPATH"] = str(artifact or files.artifact)
    given = {**plain, **{name: secret.value for name, secret in secrets.items()}}
    # HOME stays ours: it is also how stray processes of the service are known.
    fixed = {"HOME": str(files.home)}
    if port is not None:
        fixed |= {"HOST": HOST, "PORT": str(port)}
    return {**base, **given, **fixed}
