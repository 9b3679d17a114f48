"""One server of its own: its files, and starting and stopping it.

A server is no child of the broker's: ``pg_ctl`` starts it in a session of its own, so that it goes on when the broker
stops, and another broker finds it by the process id in its data directory. It listens on TCP alone; what has to be done
before anybody may log in, the broker does through a socket in a private directory.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from brokers.postgres.databases import Databases
from brokers.postgres.logins import Login
from brokers.postgres.physical.account import HERE, Account, last_line, run_as
from brokers.postgres.programs import ProgramFailed
from brokers.postgres.server import Lost, Server
from brokers.sdk.atomic import write_atomically
from schemas.secrets import Secret

SUPERUSER = "postgres"
SEGMENT_MIB = 4
"""Of a file of the log: the last one of a copy is sent whole."""
INITDB_SECONDS = 120.0
START_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05
_RECORD = "service.json"
_LOG = "log"
_PASSWORD = "superuser.password"  # noqa: S105 - the name of a file
_SETTINGS: Mapping[str, str] = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_level": "replica",
    "summarize_wal": "on",
    "max_wal_size": "1GB",
    "password_encryption": "scram-sha-256",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_line_prefix": "'%m [%p] %q%u@%d '",
    "jit": "off",
}
_NOBODY = "local all {superuser} trust\n"
_EVERYBODY = "host all all all scram-sha-256\nhost replication {superuser} all scram-sha-256\n"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is there for, and where; ``ready`` when it is complete. ``made`` is the id of its data directory,
    which no other one ever had."""

    service_id: str
    labels: dict[str, str] = {}
    plan: str = ""
    port: int = 0
    ready: bool = False
    restored_bytes: int = 0
    method: str = ""
    made: str = ""


class Cluster:
    """The server in ``directory``, which only its user and the broker can look into."""

    def __init__(self, directory: Path, *, account: Account, bin_dir: Path, host: str) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.staged = directory / "staged"
        self.account = account
        self.bin_dir = bin_dir
        self.host = host
        self.server = Server(self.login)
        self.databases = Databases(self.server)

    # --- the record

    def record(self) -> Record | None:
        """``None`` when there is none."""
        try:
            return msgspec.json.decode((self.directory / _RECORD).read_bytes(), type=Record)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, record: Record) -> None:
        """Durably. The directory is made with the first record."""
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_atomically(self.directory / _RECORD, msgspec.json.encode(record))

    def login(self) -> Login:
        """As the superuser."""
        record = self.record()
        assert record is not None
        return Login(self.host, record.port, SUPERUSER, "postgres", self.password)

    @property
    def password(self) -> Secret:
        """The superuser's."""
        return Secret(value=(self.directory / _PASSWORD).read_text())

    def new_password(self) -> Secret:
        """Choose and keep one."""
        write_atomically(self.directory / _PASSWORD, secrets.token_urlsafe(32).encode())
        return self.password

    # --- its files

    def new_data(self, *, shut: bool = False) -> None:
        """An empty data directory of the server's user, in place of what was there; ``shut``: for now the broker's
        alone. Blocking."""
        if self.data.exists():
            shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)
        if not shut:
            self.account.own(self.data)

    async def initialise(self) -> None:
        """A blank cluster, not running."""
        await asyncio.to_thread(self.new_data)
        secret = self.new_password()
        with tempfile.NamedTemporaryFile("w", prefix="calque-", suffix=".pw") as file:
            file.write(secret.value + "\n")
            file.flush()
            self.account.own(Path(file.name))
            await self._run(
                "initdb",
                *("-D", HERE, "-U", SUPERUSER, "--pwfile", file.name, "--auth=scram-sha-256", "--no-instructions"),
                *("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", f"--wal-segsize={SEGMENT_MIB}"),
                seconds=INITDB_SECONDS,
            )
        await asyncio.to_thread(self.configure)

    def configure(self, *, sockets: Path | None = None, more: Mapping[str, str] | None = None) -> None:
        """Write all configuration anew, whatever a copy brought. With ``sockets`` nobody but the broker is let in, by
        way of a socket there. Blocking."""
        record = self.record()
        assert record is not None
        settings = {
            **_SETTINGS,
            "listen_addresses": f"'{self.host}'",
            "port": str(record.port),
            "unix_socket_directories": f"'{sockets or ''}'",
            **(more or {}),
        }
        access = (_EVERYBODY if sockets is None else _NOBODY).format(superuser=SUPERUSER)
        self.put("postgresql.conf", "".join(f"{name} = {value}\n" for name, value in settings.items()))
        self.put("postgresql.auto.conf", "")
        self.put("pg_ident.conf", "")
        self.put("pg_hba.conf", access)

    def put(self, name: str, text: str) -> None:
        """A file of the data directory. Blocking."""
        path = self.data / name
        write_atomically(path, text.encode())
        self.account.own(path)

    @asynccontextmanager
    async def private_way(self) -> AsyncIterator[tuple[Path, Server]]:
        """A directory for a socket that only the server's user and the broker reach, and the way in through it."""
        record = self.record()
        assert record is not None
        sockets = Path(tempfile.mkdtemp(prefix="calque-"))
        try:
            self.account.own(sockets)
            login = Login(str(sockets), record.port, SUPERUSER, "postgres")
            yield sockets, Server(lambda: login)
        finally:
            await asyncio.to_thread(shutil.rmtree, sockets, ignore_errors=True)

    # --- the server

    async def start(self, *, seconds: float = START_SECONDS) -> None:
        """Start it unless it runs, and wait until it lets somebody in. Raises :class:`ProgramFailed`."""
        if not self.running():
            (self.data / "postmaster.pid").unlink(missing_ok=True)  # of a server that is gone, maybe another's id now
            log = self.directory / _LOG
            waiting = ("-w", "-t", str(int(seconds)))
            await self._run("pg_ctl", "start", "-D", HERE, *waiting, seconds=seconds + 10, log=log)

    async def accepts(self, way: Server | None = None, *, seconds: float = START_SECONDS) -> None:
        """Wait until the broker gets in, by the usual way or another. Raises :class:`ProgramFailed` when the server
        ended instead, and what keeps the broker out after a while."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with (way or self.server).session() as session:
                    await session.value("SELECT 1")
                return
            except Lost:
                if not self.running():
                    said = await asyncio.to_thread(last_line, self.directory / _LOG)
                    raise ProgramFailed("postgres", code=1, last_line=said) from None
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """Stop it if it runs; what is connected is disconnected. Raises :class:`ProgramFailed`."""
        if self.running():
            waiting = ("-m", "fast", "-w", "-t", str(int(STOP_SECONDS)))
            await self._run("pg_ctl", "stop", "-D", HERE, *waiting, seconds=STOP_SECONDS + 10)

    def running(self) -> bool:
        """Whether the process that the data directory names is there and works in it."""
        try:
            number = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            return Path(f"/proc/{number}/cwd").samefile(self.data)
        except (OSError, ValueError):
            return False

    async def remove(self) -> None:
        """Stop it and remove all its files, the record last."""
        await self.stop()
        for path in (self.data, self.staged):
            if path.exists():
                await asyncio.to_thread(shutil.rmtree, path)
        for name in (_LOG, _PASSWORD, _RECORD):
            (self.directory / name).unlink(missing_ok=True)
        if self.directory.exists():
            await asyncio.to_thread(shutil.rmtree, self.directory)

    async def _run(self, program: str, *arguments: str, seconds: float, log: Path | None = None) -> str:
        path = self.bin_dir / program
        return await run_as(self.account, path, arguments, directory=self.data, seconds=seconds, log=log)
