"""Masking rules against real schemas: what fails before a copy begins, and what a preview shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from brokers.masking.transformers import Custom
from brokers.postgres.logins import Login
from brokers.postgres.masking import Masker
from brokers.postgres.server import Server, Session
from schemas.brokers import MaskingPreview, PreviewMasking
from schemas.masking import Masking, MaskingOrder, MaskingRule
from schemas.problems import CalqueError
from schemas.secrets import Secret
from tests.servers import RunningPostgres

SCHEMA = """
CREATE DOMAIN short_code AS varchar(12) CHECK (VALUE ~ '^[A-Z]{2}[0-9]+$');
CREATE TABLE users (
    id serial PRIMARY KEY, email text NOT NULL UNIQUE, name varchar(40) NOT NULL, code short_code,
    born date CHECK (born > '1900-01-01'), token uuid UNIQUE, profile jsonb, tags text[],
    lower_name text GENERATED ALWAYS AS (lower(name)) STORED);
CREATE TABLE orders (
    id bigint PRIMARY KEY, user_email text REFERENCES users (email), user_id int REFERENCES users,
    total numeric(10, 2) CHECK (total >= 0), note text);
CREATE TABLE visits (id int, at date NOT NULL, ip inet) PARTITION BY RANGE (at);
CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE visits_new PARTITION OF visits FOR VALUES FROM ('2020-01-01') TO ('2040-01-01');
CREATE UNIQUE INDEX names ON users (lower(name));
CREATE TABLE "Odd %s ""name" ("a.b" text CHECK (length("a.b") > 0 AND "a.b" NOT LIKE '%x%'));
INSERT INTO users (email, name, code, born, token, profile, tags) VALUES
    ('ada@corp.example', 'Ada Lovelace', 'AB12', '1985-12-10', gen_random_uuid(),
     '{"contact": {"email": "ada@corp.example", "age": 36}, "plan": "gold"}', '{secret one,"b,c"}'),
    ('alan@corp.example', 'Alan Turing', 'CD7', '1982-06-23', gen_random_uuid(), NULL, NULL);
INSERT INTO orders VALUES (1, 'ada@corp.example', 1, 12.50, 'call Ada'), (2, NULL, 2, 0.99, NULL);
INSERT INTO visits VALUES (1, '2010-01-01', '192.168.7.7'), (2, '2022-01-01', 'fe80::7');
INSERT INTO "Odd %s ""name" VALUES ('hello');
"""
GOOD = {
    "users.email": "fake email",
    "orders.user_email": "fake email",
    "users.name": "hash",
    "users.code": "keep format",
    "users.born": "shift dates 30",
    "users.token": "hash",
    "users.profile": "hash",
    "users.profile->plan": "keep",
    "users.profile->contact.email": "fake email",
    "users.tags": "redact",
    "orders.total": "keep format",
    "orders.note": "null",
    "visits.ip": "fake ip",
    "*.id": "keep",
    "orders.user_id": "keep",
    "visits*.at": "keep",
    "Odd*.a?b": "keep",
}


@pytest.fixture
async def session(postgres_server: RunningPostgres) -> AsyncIterator[Session]:
    """In a database of its own, with the tables above."""
    address = postgres_server.server
    login = Login(address.host, address.port, address.user, "postgres", password=Secret(value=postgres_server.password))
    server, name = Server(lambda: login), f"rules_{uuid4().hex}"
    async with server.session() as admin:
        await admin.run(f"CREATE DATABASE {name}")
        try:
            async with server.session(database=name) as made:
                for statement in SCHEMA.split(";\n"):
                    if statement.strip():
                        await made.run(statement)
                yield made
        finally:
            await admin.run(f"DROP DATABASE {name} WITH (FORCE)")


def rules(changes: dict[str, str | None] | None = None, *, unclassified: str = "refuse") -> Masking:
    wanted = {column: words for column, words in {**GOOD, **(changes or {})}.items() if words is not None}
    # what a test says of a column comes before what is said of all
    ordered = sorted(wanted.items(), key=lambda each: "*" in each[0])
    made = tuple(MaskingRule(column=column, transformer=words) for column, words in ordered)
    return Masking(columns=made, unclassified="refuse" if unclassified == "refuse" else "keep")


async def preview(session: Session, masking: Masking, *, rows: int = 0, before: bool = False) -> MaskingPreview:
    order = MaskingOrder(rules=masking, key=Secret(value="of this test"))
    masker = Masker({"upper": Custom(lambda value, _key: value.upper(), unique=True)})
    return await masker.preview(session, PreviewMasking(service_id="s", masking=order, rows=rows, before=before))


SPEAKS_AGAINST: list[tuple[dict[str, str | None], str | None, str]] = [
    ({"orders.note": None}, "orders.note", "no rule says what becomes of column orders.note (text)"),
    ({"users.profile": None}, "users.profile", "of the rest of column users.profile"),
    ({"visits.ip": None}, "visits_new.ip", "no rule says"),
    ({"orders.user_email": "hash"}, "orders.user_email", "users.email (text), which it refers to by"),
    ({"orders.user_email": "keep"}, "orders.user_email", "is keep, and users.email"),
    ({"users.id": "hash"}, "orders.user_id", "which it refers to by"),
    ({"users.email": "fake name", "orders.user_email": "fake name"}, "users.email", "is unique by users_email_key"),
    ({"users.token": "redact"}, "users.token", "unique by users_token_key"),
    ({"users.name": "null"}, "users.name", "can't be NULL"),
    ({"users.name": "keep format"}, "users.name", "part of names, which is about more than plain values"),
    ({"visits*.at": "shift dates"}, "visits_new.at", "decides in which partition a row lies"),
    ({"users.born": "hash"}, "users.born", "'hash' can't be used for date"),
    ({"users.born": "redact"}, None, ""),
    ({"users.born": "shift dates by nobody"}, "users.born", "has no column 'nobody'"),
    ({"users.code": "hash"}, "users.code", "hash of column users.code breaks domain short_code"),
    ({"Odd*.a?b": "custom upper"}, None, ""),
    ({"Odd*.a?b": "custom lower"}, 'Odd %s "name.a.b', "no custom transformer 'lower' (it has: upper)"),
    ({"users.name->first": "hash"}, "users.name", "a place in JSON can't be in column users.name"),
]


async def test_what_speaks_against_rules_is_said_before_a_copy_begins(session: Session) -> None:
    masker = Masker({"upper": Custom(lambda value, _key: value.upper(), unique=True)})
    for changes, field, said in SPEAKS_AGAINST:
        problems = (await preview(session, rules(changes))).problems
        if field is None:
            assert problems == (), changes
            continue
        assert any(said in each.message and each.remedy for each in problems if each.field == field), (
            changes,
            problems,
        )
        with pytest.raises(CalqueError):
            await masker.check(session, rules(changes))


async def test_a_broken_check_constraint_is_found_by_trying(session: Session) -> None:
    await session.run("ALTER TABLE orders ADD CONSTRAINT cheap CHECK (note LIKE 'call %')")
    problems = (await preview(session, rules({"orders.note": "hash"}))).problems
    assert [(each.field, "cheap" in each.message) for each in problems] == [("orders.note", True)]


async def test_a_preview_shows_masked_rows_and_the_others_only_when_asked(session: Session) -> None:
    shown = await preview(session, rules(), rows=5)
    assert shown.problems == ()
    assert shown.unused == ()
    tables = {each.table: each for each in shown.rows}
    assert tables.keys() == {"users", "orders", "visits_old", "visits_new"}
    assert all(each.before == () for each in shown.rows)
    text = repr(shown)
    for hidden in ("ada@corp", "Ada", "Lovelace", "Turing", "1985-12-10", "192.168.7.7", "secret one", "fe80", "AB12"):
        assert hidden not in text
    assert '"plan": "gold"' in text
    users, orders = tables["users"], tables["orders"]
    masked = dict(zip(users.columns, users.after[0], strict=True))
    assert dict(zip(orders.columns, orders.after[0], strict=True))["user_email"] == masked["email"]
    assert str(masked["email"]) in str(masked["profile"])
    before = (await preview(session, rules(), rows=1, before=True)).rows
    assert "ada@corp.example" in next(each for each in before if each.table == "users").before[0]


async def test_a_preview_names_rules_that_fit_nothing_and_columns_that_have_none(session: Session) -> None:
    masking = Masking(columns=(MaskingRule(column="users.emial", transformer="hash"),))
    shown = await preview(session, masking)
    assert shown.unused == ("users.emial",)
    assert {each.column for each in shown.columns if each.table == "users" and not each.rule} == {
        "id", "email", "name", "code", "born", "token", "profile", "tags",
    }  # fmt: skip


async def test_a_masked_number_of_a_sequence_is_worth_a_note(session: Session) -> None:
    shown = await preview(session, rules({"users.id": "hash", "orders.user_id": "hash"}))
    assert shown.problems == ()
    assert any("public.users_id_seq" in note for note in shown.notes)


async def test_large_objects_are_refused_unless_they_are_kept(session: Session) -> None:
    await session.run("SELECT lo_from_bytea(0, 'secret')")
    assert [each.field for each in (await preview(session, rules())).problems] == ["pg_catalog.pg_largeobject.data"]
    kept = rules({"pg_catalog.pg_largeobject.data": "keep"})
    assert (await preview(session, kept)).problems == ()
