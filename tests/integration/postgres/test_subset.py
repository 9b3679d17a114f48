"""Part of the rows of a real database: foreign keys stay whole, and what is left out is in no byte of the copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

import pytest

from brokers.masking.keyed import Keyed
from brokers.postgres.logins import Login
from brokers.postgres.server import Server
from brokers.postgres.subsetting import kept_tables, look
from schemas.brokers import Copied, CopyData, Done, MaskingPreview, PreviewMasking, StageCopy
from schemas.ids import new_id
from schemas.masking import Masking, MaskingOrder, MaskingRule, RowsRule, rules_digest
from schemas.problems import CalqueError
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres, rows

KEY = Secret(value="the key of one image")
SHOP: tuple[LiteralString, ...] = (
    "CREATE SCHEMA crm",
    "CREATE TABLE crm.customers (id int PRIMARY KEY, name text NOT NULL, recruiter int REFERENCES crm.customers)",
    "CREATE TABLE categories (path text PRIMARY KEY, parent text REFERENCES categories, title text)",
    "CREATE TABLE products (code numeric(8, 2) PRIMARY KEY, category text NOT NULL REFERENCES categories, title text)",
    # the key of a region is written in another way than what refers to it
    "CREATE TABLE orders (region char(4), number bigint, customer int NOT NULL REFERENCES crm.customers, note text, "
    "PRIMARY KEY (region, number))",
    "CREATE TABLE lines (note text, place int, region varchar(8), number int, product numeric REFERENCES products, "
    "PRIMARY KEY (region, number, place), FOREIGN KEY (region, number) REFERENCES orders ON DELETE CASCADE)",
    # either refers to the other; an account may have no main card
    "CREATE TABLE accounts (id int PRIMARY KEY, customer int REFERENCES crm.customers, main_card int, secret text)",
    "CREATE TABLE cards (id int PRIMARY KEY, account int NOT NULL REFERENCES accounts, secret text)",
    "ALTER TABLE accounts ADD FOREIGN KEY (main_card) REFERENCES cards DEFERRABLE INITIALLY DEFERRED",
    "CREATE TABLE visits (at date NOT NULL, id int NOT NULL, customer int REFERENCES crm.customers, trace text, "
    "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
    "CREATE TABLE visits_old (trace text, customer int, at date NOT NULL, id int NOT NULL)",
    "ALTER TABLE visits ATTACH PARTITION visits_old FOR VALUES FROM ('2000-01-01') TO ('2020-01-01')",
    "CREATE TABLE visits_new PARTITION OF visits FOR VALUES FROM ('2020-01-01') TO ('2040-01-01')",
    "CREATE TABLE audit (what text)",
    "CREATE TABLE settings (name text, value text)",
    "INSERT INTO crm.customers SELECT n, 'customer-' || n || '-', CASE WHEN n % 5 = 0 THEN n / 5 END "
    "FROM generate_series(1, 400) n",
    "INSERT INTO categories SELECT 'c' || n, CASE WHEN n > 1 THEN 'c' || n / 2 END, E'category-' || n || E'-\\t\\\\ ' "
    "FROM generate_series(1, 200) n",
    "INSERT INTO products SELECT n + 0.5, 'c' || 1 + n % 200, 'product-' || n || '-' FROM generate_series(1, 600) n",
    "INSERT INTO orders SELECT CASE n % 2 WHEN 0 THEN 'eu' ELSE 'us' END, n, 1 + n % 400, 'order-' || n || '-' "
    "FROM generate_series(1, 900) n",
    "INSERT INTO lines SELECT 'line-' || number || '-' || place || '-', place, trim(region), number, "
    "CASE WHEN place < 3 THEN 1.5 + (number * 7 + place) % 600 END FROM orders, generate_series(1, 3) place",
    "INSERT INTO accounts SELECT n, NULLIF(n % 401, 0), NULL, 'account-' || n || '-' FROM generate_series(1, 500) n",
    "INSERT INTO cards SELECT n, 1 + n * 3 % 500, 'card-' || n || '-' FROM generate_series(1, 700) n",
    "UPDATE accounts SET main_card = 1 + id % 700 WHERE id % 4 = 0",
    "INSERT INTO visits SELECT date '2001-01-01' + n * 40, n, 1 + n % 400, 'visit-' || n || '-' "
    "FROM generate_series(1, 300) n",
    "INSERT INTO audit SELECT 'audit-' || n || '-' FROM generate_series(1, 100) n",
    "INSERT INTO settings VALUES ('theme', 'dark')",
)
SHARES = {
    "crm.customers": "20%",
    "categories": "referenced",
    "products": "referenced",
    "audit": "0%",
}
TABLES = ("crm.customers", "categories", "products", "orders", "lines", "accounts", "cards", "visits")
NAMED: Mapping[str, LiteralString] = {
    "crm.customers": "SELECT name FROM crm.customers",
    "categories": "SELECT left(title, -3) FROM categories",
    "products": "SELECT title FROM products",
    "orders": "SELECT note FROM orders",
    "lines": "SELECT note FROM lines",
    "accounts": "SELECT secret FROM accounts",
    "cards": "SELECT secret FROM cards",
    "visits": "SELECT trace FROM visits",
    "audit": "SELECT what FROM audit",
}
# What may stay when these customers do, asked of the server in a way of its own.
CLOSED: Mapping[str, LiteralString] = {
    "orders": "SELECT note FROM orders WHERE customer = ANY (%s)",
    "lines": "SELECT l.note FROM lines l JOIN orders o USING (number) WHERE customer = ANY (%s)",
    "visits": "SELECT trace FROM visits WHERE customer = ANY (%s)",
    "products": "SELECT DISTINCT title FROM products JOIN lines ON product = code JOIN orders USING (number) "
    "WHERE customer = ANY (%s)",
    "categories": "WITH RECURSIVE used AS (SELECT category AS path FROM products JOIN lines ON product = code "
    "JOIN orders USING (number) WHERE customer = ANY (%s) UNION "
    "SELECT parent FROM categories JOIN used USING (path)) "
    "SELECT left(title, -3) FROM categories JOIN used USING (path)",
}


def rules(shares: Mapping[str, str], **columns: str) -> Masking:
    return Masking(
        columns=tuple(
            MaskingRule(column=column.replace("__", "."), transformer=words) for column, words in columns.items()
        ),
        rows=tuple(RowsRule(table=table, share=share) for table, share in shares.items()),
    )


async def fill(broker: Postgres, service_id: str) -> None:
    await broker.provision(service_id)
    async with await broker.connect(service_id) as app:
        for statement in SHOP:
            await app.execute(statement.encode())


async def subset_copy(broker: Postgres, repository: Site, service_id: str, copy: str, masking: Masking) -> Copied:
    await broker.run("stage_copy", StageCopy(id=new_id(), service_id=service_id, copy=copy, masking=masking), Done)
    await broker.prepare(service_id, copy)
    asked = CopyData(
        id=new_id(),
        service_id=service_id,
        copy=copy,
        grant=repository.open_write(copy),
        masking=MaskingOrder(rules=masking, key=KEY),
    )
    copied = await broker.run("copy", asked, Copied)
    repository.repository.commit(copy)
    await broker.discard(copy)
    return copied


async def test_a_subset_is_whole_and_holds_nothing_of_what_is_left_out(either: Postgres, repository: Site) -> None:
    broker = either
    source, target, copy = new_id(), new_id(), new_id()
    await fill(broker, source)
    masking = rules(SHARES, orders__note="keep", settings__value="redact")
    copied = await subset_copy(broker, repository, source, copy, masking)
    stream = b"".join([await repository.read(copy, part.name) for part in copied.parts])
    await broker.provision(target, restore=repository.open_read(copy))  # with all constraints
    left_out = 0
    async with await broker.connect(source) as before, await broker.connect(target) as after:
        for table, query in NAMED.items():
            all_rows = {name for (name,) in await rows(before, query)}
            kept = {name for (name,) in await rows(after, query)}
            assert kept <= all_rows
            assert not [name for name in all_rows - kept if name.encode() in stream], table
            assert all(name.encode() in stream for name in kept), table
            left_out += len(all_rows - kept)
        customers = [number for (number,) in await rows(after, "SELECT id FROM crm.customers")]
        assert 0 < len(customers) < 160
        for table, query in CLOSED.items():
            found = await before.execute(query, (customers,))
            expected = {name for (name,) in await found.fetchall()}
            assert {name for (name,) in await rows(after, NAMED[table])} == expected, table
        # cards go with their account, and an account with its main card
        dangling = await before.execute(
            "WITH RECURSIVE gone(kind, id) AS ("
            "SELECT 'a', id FROM accounts WHERE customer <> ALL (%(kept)s) UNION "
            "SELECT CASE kind WHEN 'a' THEN 'c' ELSE 'a' END, CASE kind WHEN 'a' THEN c.id ELSE a.id END FROM gone "
            "LEFT JOIN cards c ON kind = 'a' AND c.account = gone.id "
            "LEFT JOIN accounts a ON kind = 'c' AND a.main_card = gone.id "
            "WHERE coalesce(a.id, c.id) IS NOT NULL) "
            "SELECT 500 - count(*) FILTER (WHERE kind = 'a'), 700 - count(*) FILTER (WHERE kind = 'c') FROM gone",
            {"kept": customers},
        )
        counts = "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM cards)"
        assert await rows(after, counts) == await dangling.fetchall()
        assert await rows(after, "SELECT count(*) FROM accounts WHERE customer IS NULL") != [(0,)]
        assert await rows(after, "SELECT name, value FROM settings") == [("theme", "REDACTED")]
        assert await rows(after, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == [(0,)]
    assert copied.masked is not None
    assert copied.masked.subset
    assert copied.masked.rows_left_out == left_out
    assert copied.masked.rules == rules_digest(masking)


async def test_the_same_key_keeps_the_same_rows_and_a_number_is_a_number(broker: Postgres, repository: Site) -> None:
    await fill(broker, "again")
    for copy in ("again-1", "again-2"):
        await subset_copy(broker, repository, "again", copy, rules({"products": "25", "lines": "0"}))
        await broker.provision(f"{copy}-r", restore=repository.open_read(copy))
    found = []
    for copy in ("again-1", "again-2"):
        async with await broker.connect(f"{copy}-r") as app:
            found.append(await rows(app, "SELECT code FROM products ORDER BY 1"))
            assert await rows(app, "SELECT count(*) FROM lines") == [(0,)]
            assert await rows(app, "SELECT count(*) FROM orders") == [(900,)]
    assert len(found[0]) == 25
    assert found[0] == found[1]


async def test_a_table_whose_rows_can_not_be_told_apart_refuses_the_copy(broker: Postgres, repository: Site) -> None:
    await fill(broker, "keyless")
    masking = rules({"orders": "10%"})
    await broker.run(
        "stage_copy", StageCopy(id=new_id(), service_id="keyless", copy="keyless-1", masking=masking), Done
    )
    async with await broker.connect("keyless") as app:
        await app.execute(
            "CREATE TABLE parcels (region char(4), number bigint, FOREIGN KEY (region, number) REFERENCES orders)"
        )
    stage = StageCopy(id=new_id(), service_id="keyless", copy="keyless-2", masking=masking)
    problem = await broker.fails("stage_copy", stage)
    assert problem.field == "parcels"
    assert "rows of orders that are left out" in problem.message
    assert "primary key" in (problem.remedy or "")
    await broker.prepare("keyless", "keyless-1")
    asked = CopyData(
        id=new_id(),
        service_id="keyless",
        copy="keyless-1",
        grant=repository.open_write("keyless-1"),
        masking=MaskingOrder(rules=masking, key=KEY),
    )
    assert (await broker.fails("copy", asked)).field == "parcels"
    await broker.discard("keyless-1")


async def test_a_preview_counts_what_is_kept_and_shows_nothing_else(broker: Postgres) -> None:
    await fill(broker, "seen")
    masking = rules({**SHARES, "nobody": "1%"}, orders__note="hash", lines__note="redact")
    asked = PreviewMasking(service_id="seen", masking=MaskingOrder(rules=masking, key=KEY), rows=50, before=True)
    shown = await broker.ask("preview_masking", asked, MaskingPreview)
    assert shown.problems == ()
    assert shown.unused == ("nobody",)
    tables = {each.table: each for each in shown.tables}
    assert tables.keys() == {*TABLES, "audit"}
    assert (tables["audit"].rows, tables["audit"].kept, tables["audit"].rule) == (100, 0, "audit")
    assert (tables["orders"].rows, tables["orders"].rule) == (900, "")
    assert 0 < tables["orders"].kept < 500
    by_table = {each.table: each for each in shown.rows}
    assert len(by_table["orders"].after) == min(50, tables["orders"].kept)
    orders = [int(str(note).split("-")[1]) for (note,) in by_table["orders"].before]
    async with await broker.connect("seen") as app:
        found = await app.execute("SELECT count(DISTINCT customer) FROM orders WHERE number = ANY (%s)", (orders,))
        ((customers,),) = await found.fetchall()
    assert len(set(orders)) == len(orders)
    assert customers <= tables["crm.customers"].kept


async def test_too_many_rows_are_refused_with_what_to_do(broker: Postgres) -> None:
    await fill(broker, "many")
    address = broker.server.server
    login = Login(address.host, address.port, address.user, "postgres", password=Secret(value=broker.server.password))
    async with await broker.connect("many") as app:
        ((database,),) = await rows(app, "SELECT current_database()")
    async with Server(lambda: login).session(database=database) as session:
        catalog, found = await look(session, rules(SHARES))
        assert found.problems == ()
        with pytest.raises(CalqueError, match="too many") as refused:
            await kept_tables(session, catalog, found, Keyed.of(KEY), most=2000)
        assert "'0%'" in (refused.value.problem.remedy or "")
        # the session still serves
        kept = await kept_tables(session, catalog, found, Keyed.of(KEY))
        assert kept.left_out > 0
        await session.run("INSERT INTO categories VALUES ('unused', 'c1'), ('unused below', 'unused')")
        for shares, expected in (
            ({"categories": "referenced"}, {"categories": (202, 200)}),
            ({"orders": "0%"}, {"orders": (900, 0), "lines": (2700, 0)}),
        ):
            catalog, found = await look(session, rules(shares))
            kept = await kept_tables(session, catalog, found, Keyed.of(KEY))
            assert {each.table: (each.rows, each.kept) for each in kept.shares} == expected
        await session.run("ANALYZE")
        _, found = await look(session, rules(SHARES), most=2000)
        assert ["too many" in each.message for each in found.problems] == [True]
