"""Connections to the database, kept and given out one per thread of work. The only module that imports psycopg."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from brokers.postgres_repository.settings import DatabaseSection
from brokers.sdk.errors import temporary_error
from schemas.problems import CalqueError, Problem, permanent, temporary

Connection = psycopg.Connection[TupleRow]

CONNECT_SECONDS = 5
ANSWER_MILLISECONDS = 20_000
"""How long what was sent may stay unacknowledged before the connection counts as lost."""
WAIT_SECONDS = 60.0
LOCK_MILLISECONDS = 30_000
"""How long a put waits for another one of the same name, whose writer may have vanished."""
RETRY_SECONDS = 2.0
FULL_SECONDS = 30.0

# Classes of SQLSTATE that pass by themselves: connection, resources, operator intervention, rollbacks by conflict.
_TEMPORARY_CLASSES = frozenset({"08", "53", "57", "40"})
_TEMPORARY_STATES = frozenset({"55006", "55P03", "25006"})  # in use, lock not available, a standby that is read only
_FULL_STATES = frozenset({"53100", "53200"})
_CREDENTIAL_STATES = frozenset({"28000", "28P01"})


class Sessions:
    """At most ``connections`` of them, made when they are needed. Safe to use from several threads."""

    def __init__(self, section: DatabaseSection) -> None:
        self._section = section
        self._slots = threading.Semaphore(section.connections)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection, each statement its own transaction unless one is begun.

        Raises :class:`CalqueError`: temporary when the server is away or busy, permanent when it refuses. A kept one
        is tried before it is given out again; one that is left in the middle of something is closed.
        """
        if not self._slots.acquire(timeout=WAIT_SECONDS):
            raise temporary_error("unavailable", "all connections to the repository's database are in use")
        try:
            with self._explained():
                connection = self._take()
                try:
                    yield connection
                finally:
                    self._give_back(connection)
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close what is idle now, and the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if _answers(connection):
                return connection
        return self._connect()

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            idle = connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
            if idle and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> Connection:
        section = self._section
        secure: dict[str, Any] = {"sslrootcert": str(section.ca_file)} if section.ca_file else {}
        return psycopg.connect(
            host=section.host,
            port=section.port,
            user=section.user,
            password=section.password(),
            dbname=section.database,
            sslmode=section.sslmode,
            application_name="calque repository",
            connect_timeout=CONNECT_SECONDS,
            tcp_user_timeout=ANSWER_MILLISECONDS,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            # Durable when a put returns, whatever the server's own default is.
            options=f"-c synchronous_commit=on -c lock_timeout={LOCK_MILLISECONDS}",
            autocommit=True,
            **secure,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise CalqueError(problem_of(error)) from None


def problem_of(error: psycopg.Error) -> Problem:
    """The problem that an error of PostgreSQL stands for."""
    state = error.sqlstate or ""
    message = error.diag.message_primary or str(error).strip().partition("\n")[0] or type(error).__name__
    if state in _CREDENTIAL_STATES or "authentication failed" in message or "no password supplied" in message:
        return permanent(
            "unauthorised",
            f"PostgreSQL refuses the repository's user: {message}",
            field="database.user",
            remedy="check database.user and database.password_file",
        )
    if state == "42501":
        return permanent(
            "unauthorised",
            f"PostgreSQL doesn't let the repository's user do this: {message}",
            field="database.user",
            remedy="grant CREATE on the database, or make the user own the schema",
        )
    if state == "3D000" or ("database" in message and "does not exist" in message):
        return permanent("no_database", f"PostgreSQL: {message}", field="database.database", remedy="make the database")
    if state in _FULL_STATES:
        return temporary("full", f"PostgreSQL has no room: {message}", retry_after_seconds=FULL_SECONDS)
    if state[:2] in _TEMPORARY_CLASSES or state in _TEMPORARY_STATES:
        return temporary("unavailable", f"PostgreSQL: {message}", retry_after_seconds=RETRY_SECONDS)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not state:
        return temporary("unavailable", f"PostgreSQL does not answer: {message}", retry_after_seconds=RETRY_SECONDS)
    return permanent("postgres", f"PostgreSQL: {message}" + (f" (SQLSTATE {state})" if state else ""))


def _answers(connection: Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        connection.close()
        return False
    return True
