"""An image of part of the rows, saved and run elsewhere by the command line: foreign keys are whole there, no value
that was masked is there, not even in what the planner knows, and what was left out is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from hub.stack.servers.postgres import postgres_server
from tests.e2e.main_job.ways import must
from tests.e2e.stack import Stack, running_stack

pytestmark = [pytest.mark.stack, pytest.mark.full, pytest.mark.xdist_group("masked-stack")]

CUSTOMERS, ORDERS, CATEGORIES = 400, 2000, 300
SCHEMA = (
    "CREATE TABLE categories (id int PRIMARY KEY, above int REFERENCES categories, name text NOT NULL)",
    f"INSERT INTO categories SELECT n, nullif(n / 2, 0), 'category ' || n FROM generate_series(1, {CATEGORIES}) n",
    "CREATE TABLE customers (id int PRIMARY KEY, email text UNIQUE NOT NULL, friend int REFERENCES customers)",
    "INSERT INTO customers SELECT n, 'person' || n || '@corp.example', CASE WHEN n % 3 = 0 THEN n - 1 END "
    f"FROM generate_series(1, {CUSTOMERS}) n",
    "CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, "
    "category int REFERENCES categories) PARTITION BY RANGE (id)",
    "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (1000)",
    "CREATE TABLE orders_2 PARTITION OF orders DEFAULT",
    f"INSERT INTO orders SELECT n, 1 + n % {CUSTOMERS}, CASE WHEN n % 40 = 0 THEN 1 + n % {CATEGORIES} END "
    f"FROM generate_series(1, {ORDERS}) n",
    "CREATE TABLE log (told text)",
    "INSERT INTO log SELECT 'person' || n || '@corp.example came by' FROM generate_series(1, 100) n",
    "ANALYZE",
)
RULES = """\
ideas:
  columns:
    "customers.email": fake email
    "ideas.author": fake name
  rows:
    customers: 20%
    categories: referenced
    log: 0%
docs: {keep: true}
thumbs: {keep: true}
"""
BROKEN = (
    "SELECT count(*) FROM orders o LEFT JOIN customers c ON c.id = o.customer WHERE c.id IS NULL",
    "SELECT count(*) FROM orders o LEFT JOIN categories c ON c.id = o.category WHERE c.id IS NULL AND o.category > 0",
    "SELECT count(*) FROM customers c LEFT JOIN customers f ON f.id = c.friend WHERE f.id IS NULL AND c.friend > 0",
    "SELECT count(*) FROM categories c LEFT JOIN categories a ON a.id = c.above WHERE a.id IS NULL AND c.above > 0",
    "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated",
)


async def connect(stack: Stack, site: str) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """To the one database of an app at a site, as the role that owns all in it."""
    port = json.loads((stack.home / "ports.json").read_text())[f"{site}-postgres"]
    server = postgres_server(directory=stack.home / "sites" / site / "postgres", port=port)
    login: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password_file.read_text().strip(),
    }
    async with await psycopg.AsyncConnection.connect(**login, dbname="postgres") as admin:
        found = await (await admin.execute("SELECT datname FROM pg_database WHERE datname ~ '^calque_'")).fetchall()
    ((name,),) = found
    connection = await psycopg.AsyncConnection.connect(**login, dbname=name, autocommit=True)
    await connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
    return connection


async def value(connection: psycopg.AsyncConnection[tuple[Any, ...]], query: str) -> Any:
    """The first column of the first row."""
    row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return row[0]


async def test_part_of_the_rows_runs_elsewhere_with_whole_foreign_keys(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    async with running_stack(tmp_path / "home") as stack:
        await stack.must("template", "apply", "calque.yaml")
        await must(stack, "deploy", "hackathon", "--site", "north", "--name", "ideas")
        async with await connect(stack, "north") as source:
            for statement in SCHEMA:
                await source.execute(statement.encode())
        checked = (await must(stack, "mask", "check", "ideas", "--rules", str(rules))).stdout
        assert "customers" in checked
        assert "by what it refers to" in checked
        await must(stack, "save", "ideas", "--name", "few", "--rules", str(rules))
        described = (await must(stack, "image", "describe", "few")).stdout
        assert "left out" in described
        await must(stack, "run", "few", "--site", "south", "--name", "copy")
        async with await connect(stack, "south") as copy:
            kept = await value(copy, "SELECT count(*) FROM customers")
            assert 0 < kept < CUSTOMERS // 2
            for query in BROKEN:
                assert await value(copy, query) == 0, query
            # Each customer's orders came along, and no category that nothing refers to.
            assert await value(copy, "SELECT count(*) FROM orders") == kept * ORDERS // CUSTOMERS
            used = (
                "WITH RECURSIVE used AS (SELECT category AS id FROM orders WHERE category > 0 UNION "
                "SELECT above FROM categories JOIN used USING (id) WHERE above > 0) SELECT count(*) FROM used"
            )
            assert await value(copy, "SELECT count(*) FROM categories") == await value(copy, used)
            assert await value(copy, "SELECT count(*) FROM log") == 0
            assert await value(copy, "SELECT count(*) FROM customers WHERE email LIKE '%@corp.example'") == 0
            known = await value(copy, "SELECT string_agg(s::text, ' ') FROM pg_stats s WHERE schemaname = 'public'")
            assert "customers" in known
            assert "corp.example" not in known
