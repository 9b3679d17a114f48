"""What the planner knows of a restored database: what was known of the source, or what it finds itself."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg

from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres, rows
from tests.integration.postgres.test_copies import save
from tests.integration.postgres.test_masked_copies import HIDDEN, fill, masked_copy

SCHEMA = (
    'CREATE SCHEMA "Odd ""s"',
    'CREATE TABLE "Odd ""s"."t %" (gone int, id int, "k %" text, at timestamptz, tags text[], span int4range, '
    "money numeric, mood text)",
    'ALTER TABLE "Odd ""s"."t %" DROP COLUMN gone',
    'INSERT INTO "Odd ""s"."t %" SELECT n, CASE n % 3 WHEN 0 THEN E\'a\\tb\\\\c\' ELSE n::text END, '
    "'2020-01-01'::timestamptz + n * interval '1 minute', ARRAY['x', (n % 5)::text], int4range(n, n + n % 7 + 1), "
    "n / 3.0, CASE n % 4 WHEN 0 THEN NULL ELSE 'glad' END FROM generate_series(1, 3000) n",
    'CREATE INDEX lowered ON "Odd ""s"."t %" (lower("k %"))',
    "CREATE TABLE parted (id int, k text) PARTITION BY RANGE (id)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (500)",
    "CREATE TABLE parted_2 PARTITION OF parted DEFAULT",
    "INSERT INTO parted SELECT n, (n % 10)::text FROM generate_series(1, 1000) n",
    'CREATE MATERIALIZED VIEW seen AS SELECT id, mood FROM "Odd ""s"."t %"',
    "CREATE TABLE never (id int)",
    "INSERT INTO never SELECT generate_series(1, 500)",
    "CREATE TABLE empty (id int)",
    "CREATE TABLE both_ways (a int, b int)",
    "INSERT INTO both_ways SELECT n, n FROM generate_series(1, 500) n",
    "CREATE STATISTICS together ON a, b FROM both_ways",
)
_KNOWN: LiteralString = """
    SELECT schemaname, tablename, attname, inherited, null_frac, avg_width, n_distinct, most_common_vals::text,
           most_common_freqs, histogram_bounds::text, most_common_elems::text, most_common_elem_freqs,
           elem_count_histogram, range_length_histogram::text, range_bounds_histogram::text
    FROM pg_stats WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 3, 4
"""
_COUNTED: LiteralString = """
    SELECT relname, reltuples FROM pg_class
    WHERE relkind IN ('r', 'm') AND relnamespace >= 16384 AND NOT relispartition ORDER BY 1
"""


async def known(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    """By table."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in await rows(connection, _KNOWN):
        found.setdefault(row[1], []).append(row)
    return found


async def test_the_planner_knows_what_it_knew_of_the_source(either: Postgres, repository: Site) -> None:
    source, target, copy = new_id(), new_id(), new_id()
    await either.provision(source)
    async with await either.connect(source) as app:
        for statement in SCHEMA:
            await app.execute(statement.encode())
        await app.execute(b'ANALYZE "Odd ""s"."t %", parted, seen')
        before, counted = await known(app), await rows(app, _COUNTED)
    assert set(before) >= {"t %", "lowered", "parted", "parted_1", "seen"}
    await either.provision(target, restore=await save(either, repository, source, copy))
    async with await either.connect(target) as app:
        after = await known(app)
        assert {name: after.get(name) for name in before if name != "never"} == {
            name: found for name, found in before.items() if name != "never"
        }
        # What was not known is looked at: there, or what several columns have in common.
        assert {"never", "both_ways"} <= set(after)
        assert "empty" not in after
        assert await rows(app, "SELECT n_distinct IS NOT NULL FROM pg_stats_ext") == [(True,)]
        here = dict(await rows(app, _COUNTED))
        assert {name: here[name] for name, count in counted if count > 0} == {n: c for n, c in counted if c > 0}


async def test_a_masked_copy_tells_nothing_and_the_target_looks_itself(either: Postgres, repository: Site) -> None:
    source, target, copy = new_id(), new_id(), new_id()
    await fill(either, source, people=600)
    async with await either.connect(source) as app:
        await app.execute("ANALYZE")
        assert [hidden for hidden in HIDDEN if hidden in str(await known(app))]
    assert "statistics" not in await masked_copy(either, repository, source, copy)
    await either.provision(target, restore=repository.open_read(copy))
    async with await either.connect(target) as app:
        found = await known(app)
        assert {"people", "letters", "names", "lowered"} <= set(found)
        assert not [hidden for hidden in HIDDEN if hidden in str(found)]
