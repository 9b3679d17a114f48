"""Data services that are clones of a kept database: equal to what was restored, apart from it, never half."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from brokers.postgres.databases import Databases, Mark
from brokers.postgres.instant.kept import FILE_COPY, Kept, KeptDatabases
from brokers.postgres.instant.settings import InstantSection
from brokers.postgres.logins import Login
from brokers.postgres.names import database_of, kept_of
from brokers.postgres.server import Parameters, Server, Session
from brokers.sdk.copystream import CopyHead
from bus.connection import Bus
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.postgres.dumps import dump_of
from tests.integration.postgres.services import rows
from tests.integration.postgres.test_copies import EVERYTHING, fill, save
from tests.integration.postgres.test_limited_role import as_role
from tests.servers import NatsServer, RunningPostgres

ALWAYS = InstantSection(policy="always")
ODD = (
    "CREATE SCHEMA extra",
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE DOMAIN small AS int CHECK (VALUE < 100)",
    "CREATE TABLE extra.notes (id bigserial PRIMARY KEY, n small, feels mood, at vector(3))",
    "INSERT INTO extra.notes (n, feels, at) SELECT n, 'glad', '[1,2,3]' FROM generate_series(1, 50) n",
    "CREATE INDEX ON extra.notes USING hnsw (at vector_l2_ops)",
    "ALTER TABLE extra.notes ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON extra.notes FOR SELECT TO CURRENT_ROLE USING (n > 1)",
    "CREATE POLICY ours ON extra.notes FOR UPDATE TO PUBLIC USING (n > 2)",
    "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT n * 2'",
    "REVOKE ALL ON FUNCTION twice FROM PUBLIC",
    "CREATE MATERIALIZED VIEW sums AS SELECT sum(n) FROM extra.notes",
    "CREATE TABLE parts (n int) PARTITION BY RANGE (n)",
    "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
    "GRANT SELECT ON parts TO pg_monitor",
    "GRANT SELECT (n) ON parts_1 TO PUBLIC",
    "SELECT lo_from_bytea(4711, 'a large object')",
    "COMMENT ON TABLE parts IS 'in parts'",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor WITH GRANT OPTION",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA extra GRANT USAGE ON SEQUENCES TO PUBLIC",
)


def login(server: RunningPostgres, *, user: str | None = None, password: str | None = None) -> Login:
    address = server.server
    return Login(
        address.host, address.port, user or address.user, "postgres", Secret(value=password or server.password)
    )


def head(copy: str, root: str = "r1") -> CopyHead:
    return CopyHead(copy=copy, parts=(), merkle_root=root, logical_bytes=1)


class Kill(BaseException):
    """The end of the broker, as far as the server sees."""


class Mortal(Server):
    """A way to a server that ends at the statement after ``left`` others."""

    left = 0

    async def connect(self, *, database: str | None = None, application: str = "calque broker") -> Session:
        session = await super().connect(database=database, application=application)
        run, rows_ = session.run, session.rows

        async def mortal_run(statement: str, parameters: Parameters | None = None) -> None:
            self._step()
            await run(statement, parameters)

        async def mortal_rows(statement: str, parameters: Parameters | None = None) -> list[tuple[object, ...]]:
            self._step()
            return await rows_(statement, parameters)

        session.run, session.rows = mortal_run, mortal_rows  # type: ignore[method-assign]
        return session

    def _step(self) -> None:
        if self.left <= 0:
            raise Kill
        self.left -= 1


class Here:
    """The parts of the broker that a clone takes, on the shared server, and what was made by them."""

    def __init__(self, server: RunningPostgres, policy: InstantSection, way: Server | None = None) -> None:
        self.server = server
        self.way = way or Server(lambda: login(server))
        self.databases = Databases(self.way)
        self.kept = KeptDatabases(self.way, self.databases, policy)

    async def blank(self, service_id: str) -> None:
        mark = Mark(service_id=service_id)
        await self.databases.create(mark)
        await self.databases.finish(mark)

    async def run(self, service_id: str, *statements: str) -> None:
        name = database_of(service_id)
        async with self.way.session(database=name) as session:
            await session.run("CREATE EXTENSION IF NOT EXISTS vector")
            await session.run(f"SET ROLE {name}")
            for statement in statements:
                await session.run(statement)

    async def clone(self, service_id: str, copy: CopyHead) -> str:
        mark = Mark(service_id=service_id)
        method = await self.kept.clone(mark, copy)
        if method:
            await self.databases.finish(mark)
        return method

    async def names(self) -> set[str]:
        return {each.name for each in (*await self.databases.describe(None), *await self.kept.describe())}


@asynccontextmanager
async def here(server: RunningPostgres, *services: str, policy: InstantSection = ALWAYS) -> AsyncIterator[Here]:
    made = Here(server, policy)
    before = await made.names()
    try:
        yield made
        for service in services:
            await made.databases.drop(service)
        await Here(server, InstantSection(policy="off")).kept.tidy()
        assert await made.names() == before
    finally:
        for service in services:
            await made.databases.drop(service)


async def test_a_clone_is_what_the_kept_database_was_and_belongs_to_another(postgres_server: RunningPostgres) -> None:
    async with here(postgres_server, "odd", "odd-2", "odd-3") as made:
        await made.blank("odd")
        await made.run("odd", *ODD)
        async with made.way.session() as session:
            await session.run(f"ALTER DATABASE {database_of('odd')} SET search_path = \"$user\", extra, 'odd name'")
        before = await asyncio.to_thread(dump_of, postgres_server, "odd")
        await made.kept.keep("odd", head("copy-odd"))
        assert await asyncio.to_thread(dump_of, postgres_server, "odd") == before
        # whatever becomes of the source now
        less = "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM pg_monitor"
        await made.run("odd", "DROP TABLE public.parts", less)
        assert await made.clone("odd-2", head("copy-odd")) == FILE_COPY
        await made.databases.drop("odd")
        assert await made.clone("odd-3", head("copy-odd")) == FILE_COPY
        assert await asyncio.to_thread(dump_of, postgres_server, "odd-2") == before
        assert await asyncio.to_thread(dump_of, postgres_server, "odd-3") == before
        async with made.way.session(database=database_of("odd-3")) as session:
            assert await session.value("SHOW search_path") == '"$user", extra, "odd name"'


async def test_a_kept_database_is_of_one_copy_with_its_contents(postgres_server: RunningPostgres) -> None:
    async with here(postgres_server, "one", "other") as made:
        await made.blank("one")
        await made.kept.keep("one", head("copy-one"))
        assert await made.clone("other", head("copy-one", "r2")) == ""
        assert await made.clone("other", head("copy-two")) == ""
        # its name alone does not make it the right one
        async with made.way.session() as session:
            await session.comment("DATABASE", kept_of("copy-one", "r1"), Kept(copy="x", root="y").text())
        assert await made.clone("other", head("copy-one")) == ""


async def test_nobody_can_connect_to_a_kept_database(postgres_server: RunningPostgres) -> None:
    async with here(postgres_server, "closed") as made:
        await made.blank("closed")
        await made.kept.keep("closed", head("copy-closed"))
        with pytest.raises(psycopg.OperationalError, match="not currently accepting"):
            await made.way.connect(database=kept_of("copy-closed", "r1"))


async def test_those_not_used_for_the_longest_time_go_first(postgres_server: RunningPostgres) -> None:
    policy = InstantSection(policy="always", databases=2)
    async with here(postgres_server, "lru", "lru-2", policy=policy) as made:
        await made.blank("lru")
        await made.kept.keep("lru", head("first"))
        await made.kept.keep("lru", head("second"))
        assert await made.clone("lru-2", head("first"))
        await made.kept.keep("lru", head("third"))
        assert {each.labels["copy"] for each in await made.kept.describe()} == {"first", "third"}
        for too_much in (InstantSection(policy="always", bytes=1000), InstantSection(policy="always", hours=1e-9)):
            await Here(postgres_server, too_much).kept.keep("lru", head("fourth"))
            assert "fourth" not in {each.labels["copy"] for each in await made.kept.describe()}


async def test_where_blocks_are_not_shared_nothing_is_kept_unless_it_is_asked_for(
    postgres_server: RunningPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokers.postgres.instant.reflinks.reflinks", lambda _: False)
    async with here(postgres_server, "plain", policy=InstantSection(data_dir=postgres_server.server.data_dir)) as made:
        await made.blank("plain")
        await made.kept.keep("plain", head("copy-plain"))
        assert await made.kept.describe() == ()


@pytest.mark.full
@pytest.mark.parametrize("doing", ["keep", "clone"])
async def test_a_kill_at_any_step_leaves_nothing_that_is_taken_for_complete(
    postgres_server: RunningPostgres, doing: str
) -> None:
    async with here(postgres_server, "mortal", "mortal-2") as made:
        await made.blank("mortal")
        await made.run("mortal", "CREATE TABLE things (n int)", "INSERT INTO things SELECT generate_series(1, 9)")
        before = await asyncio.to_thread(dump_of, postgres_server, "mortal")
        copy = head("copy-mortal")
        if doing == "clone":
            await made.kept.keep("mortal", copy)
        way = Mortal(lambda: login(postgres_server))
        dying = Here(postgres_server, ALWAYS, way)
        for steps in range(200):
            way.left = steps
            try:
                if doing == "keep":
                    await dying.kept.keep("mortal", copy)
                else:
                    await dying.clone("mortal-2", copy)
                break
            except Kill:
                if doing == "clone":
                    assert await made.databases.complete("mortal-2") is None
                    continue
                if await made.clone("mortal-2", copy):
                    assert await asyncio.to_thread(dump_of, postgres_server, "mortal-2") == before
                    break
        else:
            raise AssertionError("it never came to its end")
        assert steps > 10
        if doing == "keep":
            await made.kept.tidy()
            assert await made.clone("mortal-2", copy)
        assert await asyncio.to_thread(dump_of, postgres_server, "mortal-2") == before
        assert await asyncio.to_thread(dump_of, postgres_server, "mortal") == before


@pytest.mark.parametrize("rights", [pytest.param("SUPERUSER", marks=pytest.mark.full), "CREATEDB CREATEROLE"])
async def test_the_second_data_service_of_a_copy_is_a_clone(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path, repository: Site, rights: str
) -> None:
    copy = f"copy-instant-{len(rights)}"
    async with as_role(
        postgres_server,
        rights=rights,
        directory=tmp_path,
        bus=bus,
        nats_url=nats_server.url,
        instant={"policy": "always"},
    ) as broker:
        await fill(broker, "instant", count=300)
        grant = await save(broker, repository, "instant", copy)
        first = await broker.provision("instant-2", restore=grant)
        second = await broker.provision("instant-3", restore=grant)
        assert (first.method, second.method) == ("logical", FILE_COPY)
        assert (await broker.provision("instant-3", restore=grant)).method == FILE_COPY
        assert {each.labels.get("copy") for each in await broker.describe()} >= {copy}
        await broker.deprovision("instant-2")
        async with await broker.connect("instant") as source, await broker.connect("instant-3") as app:
            assert await rows(app, EVERYTHING) == await rows(source, EVERYTHING)
            assert await rows(app, "SELECT nextval('tickets')") == [(42,)]
            await app.execute("DROP TABLE votes")
            await app.execute("CREATE TABLE of_the_app (n int)")
        for service in ("instant", "instant-3"):
            await broker.deprovision(service)
        await Here(postgres_server, InstantSection(policy="off")).kept.tidy()
