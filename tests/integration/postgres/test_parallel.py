"""Copies of big databases, whose tables move over several connections: with all that a database may hold, compared by
what ``pg_dump`` says of both sides."""

from __future__ import annotations

import asyncio
import re

import pytest

from brokers.postgres.names import database_of
from schemas.ids import new_id
from tests.e2e.stack import until
from tests.integration.filesystem.site import Site
from tests.integration.postgres.dumps import dumps_of
from tests.integration.postgres.services import Postgres, rows
from tests.integration.postgres.test_copies import fill, save

FORMAT = "postgres-logical-2"
NASTY = (
    'CREATE SCHEMA "Odd ""name"""',
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE TYPE span AS RANGE (subtype = float8)",
    "CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, t text, j jsonb, n numeric, "
    "  at timestamptz, u uuid, b bytea, m mood, p positive, i interval, f float8, net inet, tags text[], "
    "  double bigint GENERATED ALWAYS AS (n::bigint * 2) STORED, gone int)",
    "ALTER TABLE plain DROP COLUMN gone",
    "INSERT INTO plain (t, j, n, at, u, b, m, p, i, f, net, tags) SELECT repeat(n::text, 20), "
    "  jsonb_build_object('n', n), n * 1.5, '2020-01-01'::timestamptz + n * interval '1 minute', "
    "  md5(n::text)::uuid, decode(md5(n::text), 'hex'), (ARRAY['glad','sad'])[1 + n % 2]::mood, n, "
    "  n * interval '1 hour', n / 3.0, '10.0.0.1'::inet + n, ARRAY[n::text, NULL, 'a,b\"c'] "
    "  FROM generate_series(1, 4000) n",
    "UPDATE plain SET t = NULL WHERE id % 7 = 0",
    "CREATE TABLE worded (c pair, cs pair[], s span, r regclass, ms mood[])",
    "INSERT INTO worded VALUES (ROW(1, E'x\\ty\\\\'), ARRAY[ROW(2, 'z')::pair], '[1,2)', 'plain', '{glad,sad}')",
    'CREATE TABLE "Odd ""name"""."A Table" ("Col 1" int, "sel""ect" text DEFAULT \'x\')',
    'INSERT INTO "Odd ""name"""."A Table" VALUES (1, E\'line\\nbreak\'), (2, NULL)',
    "CREATE TABLE parted (id int, k text) PARTITION BY RANGE (id)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (500)",
    "CREATE TABLE parted_2 PARTITION OF parted DEFAULT PARTITION BY HASH (k)",
    "CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "CREATE TABLE parted_2b PARTITION OF parted_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "INSERT INTO parted SELECT n, n::text FROM generate_series(1, 1000) n",
    "CREATE TABLE parent (id int)",
    "CREATE TABLE child (more text) INHERITS (parent)",
    "INSERT INTO parent VALUES (1)",
    "INSERT INTO child VALUES (2, 'c')",
    "CREATE TABLE nothing ()",
    "INSERT INTO nothing DEFAULT VALUES",
    "CREATE TABLE empty (id int)",
    "CREATE UNLOGGED TABLE quick (id int)",
    "INSERT INTO quick SELECT generate_series(1, 10)",
    "CREATE TABLE refs (plain bigint REFERENCES plain, self int PRIMARY KEY, up int REFERENCES refs)",
    "INSERT INTO refs SELECT n, n, NULLIF(n - 1, 0) FROM generate_series(1, 500) n",
    "CREATE INDEX ON plain USING gin (j)",
    "CREATE INDEX ON plain (lower(t)) WHERE t IS NOT NULL",
    "CREATE UNIQUE INDEX ON plain (u)",
    "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS "
    "  $$ BEGIN RAISE EXCEPTION 'a trigger fired during a restore'; END $$",
    "CREATE TRIGGER loud BEFORE INSERT ON quick FOR EACH ROW EXECUTE FUNCTION shout()",
    "CREATE RULE silent AS ON INSERT TO empty DO INSTEAD NOTHING",
    "ALTER TABLE refs ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY few ON refs USING (self > 10)",
    "CREATE VIEW seen AS SELECT id, t FROM plain",
    "CREATE MATERIALIZED VIEW kept AS SELECT count(*) AS n FROM plain",
    "CREATE MATERIALIZED VIEW kept_2 AS SELECT n + 1 AS n FROM kept",
    "CREATE MATERIALIZED VIEW unkept AS SELECT 1 AS one WITH NO DATA",
    "CREATE STATISTICS of_plain ON m, p FROM plain",
    "COMMENT ON TABLE plain IS 'it''s plain'",
    "COMMENT ON COLUMN plain.t IS 'text'",
    "CREATE PUBLICATION told FOR TABLE refs",
    "CREATE COLLATION german (provider = libc, locale = 'C')",
    "CREATE TABLE sorted (t text COLLATE german)",
    "INSERT INTO sorted VALUES ('ä'), ('z')",
    "CREATE SEQUENCE tickets",
    "SELECT setval('tickets', 41)",
    "SELECT lo_from_bytea(0, convert_to('a large object', 'UTF8'))",
)


async def dumped(broker: Postgres, service_id: str) -> list[str]:
    """What ``pg_dump`` says of a database; rows of a table in an order of their own."""
    (text,) = await dumps_of((broker, service_id), options=("--no-owner", "--no-acl"))
    blocks = re.split(r"(?m)^(?=COPY )|(?<=^\\\.)$", text)
    lines: list[str] = []
    for block in blocks:
        if block.startswith("COPY "):
            head, *body = block.split("\n")
            lines += [head, *sorted(body)]
        else:
            lines += [line for line in block.split("\n") if line and not line.startswith("--")]
    return lines


async def test_a_database_with_everything_in_it_comes_back_as_it_was(parallel: Postgres, repository: Site) -> None:
    source, target, copy = new_id(), new_id(), new_id()
    await parallel.provision(source)
    async with await parallel.connect(source) as app:
        for statement in NASTY:
            await app.execute(statement.encode())
    await parallel.prepare(source, copy)
    copied = await parallel.copy(source, copy, repository.open_write(copy))
    repository.repository.commit(copy)
    await parallel.discard(copy)
    assert copied.copy_format == FORMAT
    assert len([part for part in copied.parts if part.name.startswith("rows-")]) > 8
    await parallel.provision(target, restore=repository.open_read(copy))
    assert await dumped(parallel, target) == await dumped(parallel, source)


async def test_rows_are_frozen_as_they_arrive(parallel: Postgres, repository: Site) -> None:
    source, target, copy = new_id(), new_id(), new_id()
    await fill(parallel, source)
    await parallel.provision(target, restore=await save(parallel, repository, source, copy))
    async with await parallel.connect(target) as app:
        await app.execute("ANALYZE ideas")
        pages = "SELECT relpages > 0, relpages = relallfrozen FROM pg_class WHERE relname = 'ideas'"
        assert await rows(app, pages) == [(True, True)]


async def test_the_moment_holds_whatever_is_done_after_it(parallel: Postgres, repository: Site) -> None:
    source, target, copy = new_id(), new_id(), new_id()
    await fill(parallel, source, count=5000)
    everything = "SELECT id, title, md5(body) FROM ideas ORDER BY id"
    async with await parallel.connect(source) as app, await parallel.connect(source) as other:
        before = await rows(app, everything)
        await parallel.prepare(source, copy)
        await app.execute("UPDATE ideas SET title = 'changed'")
        await app.execute("DROP VIEW titles")
        truncating = asyncio.create_task(other.execute("TRUNCATE ideas CASCADE"))
        await parallel.copy(source, copy, repository.open_write(copy))
        assert not truncating.done()
        repository.repository.commit(copy)
        await parallel.discard(copy)
        await truncating
    await parallel.provision(target, restore=repository.open_read(copy))
    async with await parallel.connect(target) as app:
        assert await rows(app, everything) == before
        assert await rows(app, "SELECT count(*) FROM titles") == [(len(before),)]


async def test_a_copy_that_is_let_go_of_ends_at_once_and_leaves_no_session(
    parallel: Postgres, repository: Site
) -> None:
    source, copy = new_id(), new_id()
    await fill(parallel, source, count=60_000)
    await parallel.prepare(source, copy)
    copying = asyncio.create_task(parallel.copy(source, copy, repository.open_write(copy)))
    await parallel.discard(copy)
    with pytest.raises(AssertionError):
        await copying
    async with await parallel.connect(source) as app:

        async def none_left() -> bool:
            found = await app.execute(
                "SELECT FROM pg_stat_activity WHERE application_name LIKE 'calque copy%%' AND datname = %s",
                (database_of(source),),
            )
            return not await found.fetchall()

        await until(none_left, seconds=30, what="the sessions of the copy end")


async def test_a_restore_that_can_not_be_leaves_nothing(parallel: Postgres, repository: Site) -> None:
    source, target, copy = new_id(), new_id(), new_id()
    await parallel.provision(source)
    async with await parallel.connect(source) as app:
        await app.execute("CREATE FUNCTION small(n int) RETURNS bool LANGUAGE sql AS 'SELECT n < 10'")
        await app.execute("CREATE TABLE checked (n int CHECK (small(n)))")
        await app.execute("INSERT INTO checked VALUES (5)")
        await app.execute("CREATE OR REPLACE FUNCTION small(n int) RETURNS bool LANGUAGE sql AS 'SELECT n < 3'")
    grant = await save(parallel, repository, source, copy)
    problem = await parallel.fails("provision", parallel.provision_request(target, restore=grant))
    assert not problem.temporary
    assert "checked" in problem.message
    assert await parallel.describe(target) == ()
