"""Where things lie in the broker's state directory.

broker.lock                              held by the broker that uses the directory
secrets.key                              the key of the secret environments
artifacts/<digest>                       verified artifacts: a tree, or a wheel
services/<instance>/<service>/
    record.json                          what the service is and should be
    run.json, run.lock                   the process that runs it; held while one is being started
    artifact/                            what it runs, its working directory
    home/, tmp/                          its HOME and TMPDIR
    logs/<service>.log[.1|.2]            its output
    pause.over                           written by the guard when a pause ended by its deadline
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from schemas.problems import CalqueError, invalid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class ServiceFiles(NamedTuple):
    """The files of one app service."""

    root: Path
    service: str

    @property
    def record(self) -> Path:
        return self.root / "record.json"

    @property
    def run(self) -> Path:
        return self.root / "run.json"

    @property
    def run_lock(self) -> Path:
        return self.root / "run.lock"

    @property
    def artifact(self) -> Path:
        return self.root / "artifact"

    @property
    def staged(self) -> Path:
        return self.root / "artifact.new"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def log(self) -> Path:
        return self.root / "logs" / f"{self.service}.log"

    @property
    def pause_over(self) -> Path:
        return self.root / "pause.over"

    def make(self) -> None:
        """Make the directories, for the broker's user only."""
        for directory in (self.root.parent, self.root, self.home, self.temporary, self.log.parent):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)


class StateLayout(NamedTuple):
    """The files of one broker."""

    state_dir: Path

    @property
    def lock(self) -> Path:
        return self.state_dir / "broker.lock"

    @property
    def key(self) -> Path:
        return self.state_dir / "secrets.key"

    @property
    def artifacts(self) -> Path:
        return self.state_dir / "artifacts"

    @property
    def services(self) -> Path:
        return self.state_dir / "services"

    def service(self, *, instance: str, service: str) -> ServiceFiles:
        """The files of one service. Raises ``invalid`` for names that can't be directories."""
        for field, name in (("instance", instance), ("service", service)):
            if not _NAME.fullmatch(name):
                raise CalqueError(invalid(field, f"{name!r} can't name a service here", "use letters, digits and '-'"))
        return ServiceFiles(self.services / instance / service, service)

    def all_services(self) -> list[ServiceFiles]:
        """The files of all services that have a directory."""
        if not self.services.is_dir():
            return []
        return [
            ServiceFiles(directory, directory.name)
            for instance in sorted(self.services.iterdir())
            if instance.is_dir()
            for directory in sorted(instance.iterdir())
            if directory.is_dir()
        ]
