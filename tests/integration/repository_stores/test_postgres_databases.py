"""Databases of many kinds, and what their refusals are called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from brokers.postgres_repository.layout import VERSION
from brokers.postgres_repository.settings import DatabaseSection
from brokers.postgres_repository.store import PostgresStore
from hub.stack.ports import Ports
from schemas.problems import CalqueError, Problem
from tests.integration.repository_stores.stores import Shelf, postgres_settings
from tests.servers import RunningPostgres, run_postgres


class Administrator:
    """What the database's owner does beside the repository. Calls block."""

    def __init__(self, server: RunningPostgres) -> None:
        self._server = server

    def run(self, statement: str) -> list[Any]:
        with psycopg.connect(
            host=self._server.server.host,
            port=self._server.server.port,
            user=self._server.server.user,
            password=self._server.password,
            dbname="postgres",
            autocommit=True,
        ) as session:
            cursor = session.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def store_of(settings: dict[str, Any], **other: Any) -> PostgresStore:
    return PostgresStore(DatabaseSection.model_validate({**settings, **other}))


async def problem_of(call: Callable[[], object]) -> Problem:
    """The problem that a call fails with."""
    with pytest.raises(CalqueError) as failed:
        await asyncio.to_thread(call)
    return failed.value.problem


@pytest.fixture
def settings(postgres_server: RunningPostgres) -> dict[str, Any]:
    return postgres_settings(postgres_server)


@pytest.fixture
def administrator(postgres_server: RunningPostgres) -> Administrator:
    return Administrator(postgres_server)


@pytest_asyncio.fixture(loop_scope="session")
async def shelf(settings: dict[str, Any]) -> AsyncIterator[Shelf]:
    opened = Shelf("postgres", settings)
    yield opened
    await asyncio.to_thread(opened.close)


async def test_the_layout_is_made_once_by_many_at_a_time(settings: dict[str, Any]) -> None:
    stores = [store_of(settings) for _ in range(6)]
    try:
        await asyncio.gather(*(asyncio.to_thread(store.check) for store in stores))
        await asyncio.to_thread(stores[0].put, "a", b"x")
        assert await asyncio.to_thread(stores[5].read, "a") == b"x"
    finally:
        for store in stores:
            store.close()


async def test_a_newer_layout_is_left_alone(
    shelf: Shelf, settings: dict[str, Any], administrator: Administrator
) -> None:
    await shelf.put("a", b"x")
    schema = settings["schema_name"]
    await asyncio.to_thread(administrator.run, f"UPDATE {schema}.about SET version = {VERSION + 1}")
    newer = store_of(settings)
    try:
        problem = await problem_of(newer.check)
        assert (problem.code, problem.temporary) == ("unknown_format", False)
    finally:
        newer.close()


async def test_a_user_with_one_right_is_enough_and_without_it_is_told(
    settings: dict[str, Any], administrator: Administrator, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("only-for-this-test\n")
    user = f"keeper_{settings['schema_name']}"
    await asyncio.to_thread(administrator.run, f"CREATE ROLE {user} LOGIN PASSWORD 'only-for-this-test'")
    store = store_of(settings, user=user, password_file=str(password))
    try:
        problem = await problem_of(store.check)
        assert (problem.code, problem.field, problem.temporary) == ("unauthorised", "database.user", False)
        await asyncio.to_thread(administrator.run, f"GRANT CREATE ON DATABASE postgres TO {user}")
        await asyncio.to_thread(store.put, "a", b"x")
        # Once the schema is there the right is not needed any more.
        await asyncio.to_thread(administrator.run, f"REVOKE CREATE ON DATABASE postgres FROM {user}")
        await asyncio.to_thread(store.put, "b", b"x")
    finally:
        store.close()
        await asyncio.to_thread(administrator.run, f"DROP OWNED BY {user}")
        await asyncio.to_thread(administrator.run, f"DROP ROLE {user}")


async def test_a_wrong_password_or_database_names_its_setting(settings: dict[str, Any], tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong-one")
    for other, code, field in (
        ({"password_file": str(password)}, "unauthorised", "database.user"),
        ({"database": "nobodys"}, "no_database", "database.database"),
    ):
        store = store_of(settings, **other)
        try:
            problem = await problem_of(store.check)
            assert (problem.code, problem.field, problem.temporary) == (code, field, False)
            assert "wrong-one" not in problem.sentence()
        finally:
            store.close()


async def test_a_server_that_is_away_is_temporary(settings: dict[str, Any], tmp_path: Path) -> None:
    store = store_of(settings, port=Ports(tmp_path / "ports.json").pick("nobody"))
    try:
        problem = await problem_of(store.check)
        assert (problem.code, problem.temporary) == ("unavailable", True)
    finally:
        store.close()


async def test_a_lost_connection_is_temporary_and_the_next_call_has_a_new_one(
    shelf: Shelf, settings: dict[str, Any], administrator: Administrator
) -> None:
    await shelf.put("a", b"x")
    locked = asyncio.Event()

    def hold_the_table() -> None:
        """So that the put is surely under way when its connection is ended."""
        with psycopg.connect(
            host=settings["host"],
            port=settings["port"],
            user=settings["user"],
            password=Path(settings["password_file"]).read_text().strip(),
            dbname="postgres",
        ) as session:
            session.execute(f"LOCK TABLE {settings['schema_name']}.pieces IN EXCLUSIVE MODE".encode())
            loop.call_soon_threadsafe(locked.set)
            ended = b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not session.execute(ended).fetchall():
                session.execute(b"SELECT pg_sleep(0.02)")
                session.execute(b"SELECT pg_stat_clear_snapshot()")

    loop = asyncio.get_running_loop()
    holding = asyncio.create_task(asyncio.to_thread(hold_the_table))
    await locked.wait()
    with pytest.raises(CalqueError) as failed:
        await shelf.put("b", bytes(3 << 20))
    await holding

    assert failed.value.problem.temporary
    assert await shelf.names() == ["a"]
    await shelf.put("b", bytes(3 << 20))
    assert await shelf.names() == ["a", "b"]


async def test_a_limit_is_kept_and_tells_how_much_fits(settings: dict[str, Any]) -> None:
    store = store_of(settings, limit_bytes=5000)
    try:
        assert await asyncio.to_thread(store.free_bytes) == 5000
        await asyncio.to_thread(store.put, "a", bytes(3000))
        assert await asyncio.to_thread(store.free_bytes) == 2000
        problem = await problem_of(lambda: store.put("b", bytes(2001)))
        assert (problem.code, problem.field, problem.temporary) == ("full", "database.limit_bytes", True)
        assert [each.name for each in store.list("")] == ["a"]
        await asyncio.to_thread(store.put, "b", bytes(2000))
        assert await asyncio.to_thread(store.free_bytes) == 0
        await asyncio.to_thread(store.delete, "a")
        assert await asyncio.to_thread(store.free_bytes) == 3000
    finally:
        store.close()


async def test_deleting_leaves_no_piece(shelf: Shelf, settings: dict[str, Any], administrator: Administrator) -> None:
    await shelf.put("a", bytes(3 << 20))
    pieces = f"SELECT count(*) FROM {settings['schema_name']}.pieces"
    assert await asyncio.to_thread(administrator.run, pieces) == [(3,)]
    await shelf.delete("a")
    assert await asyncio.to_thread(administrator.run, pieces) == [(0,)]


@pytest.mark.full
async def test_a_server_that_is_killed_in_the_middle_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    async with run_postgres(tmp_path) as server:
        shelf = Shelf("postgres", postgres_settings(server))
        try:
            acknowledged: list[str] = []
            enough = asyncio.Event()

            async def write() -> None:
                for number in range(500):
                    await shelf.put(f"packs/{number}", bytes(1 << 20))
                    acknowledged.append(f"packs/{number}")
                    if number == 10:
                        enough.set()

            writing = asyncio.create_task(write())
            await enough.wait()
            await server.supervisor.stop()
            with pytest.raises(CalqueError) as failed:
                await writing
            assert failed.value.problem.temporary
            await server.supervisor.start()
            names = await shelf.names()
            assert set(acknowledged) <= set(names)
            assert len(names) <= len(acknowledged) + 1
        finally:
            shelf.close()


@pytest.mark.parametrize(
    "broken", [{"schema_name": "Big"}, {"schema_name": "a;b"}, {"schema_name": "pg_x"}, {"port": 0}, {"limit_bytes": 0}]
)
def test_settings_that_can_not_be(broken: dict[str, Any]) -> None:
    sound = {"host": "x", "user": "x", "database": "x"}
    DatabaseSection.model_validate(sound)
    with pytest.raises(ValueError):
        DatabaseSection.model_validate({**sound, **broken})
