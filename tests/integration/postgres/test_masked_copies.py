"""Masked copies on a real server: what is restored has the same shape and joins, and no original value is stored."""

from __future__ import annotations

from schemas.brokers import Copied, CopyData, Done, MaskingPreview, PreviewMasking, StageCopy
from schemas.ids import new_id
from schemas.masking import Masking, MaskingOrder, MaskingRule, rules_digest
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres, rows

KEY = Secret(value="the key of one image")
HIDDEN = ("corp.example", "Lovelace", "Turing", "DE89370400440532013000", "born in London", "07700900461", "+44")
RULES = Masking(
    unclassified="refuse",
    columns=tuple(
        MaskingRule(column=column, transformer=words)
        for column, words in {
            "people.email": "fake email",
            "people.name": "fake name",
            "people.iban": "keep format",
            "people.born": "shift dates 60",
            "people.profile": "redact",
            "people.profile->phone": "fake phone",
            "people.number": "hash",
            "people.photo": "hash",
            "archive.letters*.body": "redact",
            "letters.sender": "fake email",
            "letters.person_number": "hash",
            "letters.body": "fake text",
            "Odd*.*": "hash",
            "*.id": "keep",
            "archive.*.at": "keep",
            "letters.at": "keep",
        }.items()
    ),
)


async def fill(broker: Postgres, service_id: str, *, people: int = 3000) -> None:
    await broker.provision(service_id)
    async with await broker.connect(service_id) as app:
        for statement in (
            "CREATE TABLE people (id serial PRIMARY KEY, number bigint UNIQUE NOT NULL, email varchar(80) UNIQUE, "
            "name varchar(60), iban text CHECK (iban ~ '^[A-Z]{2}[0-9]+$'), born date, profile jsonb, photo bytea, "
            "shouted text GENERATED ALWAYS AS (upper(name)) STORED)",
            "CREATE TABLE letters (id int PRIMARY KEY, sender varchar(80) REFERENCES people (email), "
            "person_number bigint REFERENCES people (number), body text, at timestamptz NOT NULL DEFAULT now())",
            "CREATE INDEX lowered ON people (lower(email))",
            "CREATE MATERIALIZED VIEW names AS SELECT id, name FROM people",
            "CREATE SCHEMA archive",
            "CREATE TABLE archive.letters (body text, at date NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE archive.letters_1 PARTITION OF archive.letters "
            "FOR VALUES FROM ('2000-01-01') TO ('2020-01-01')",
            'CREATE TABLE "Odd ""(name" ("a, (b" text)',
            "CREATE TABLE nothing ()",
            "INSERT INTO people (number, email, name, iban, born, profile, photo) "
            "SELECT 5000 + n, 'p' || n || '@corp.example', "
            "CASE n %% 2 WHEN 0 THEN 'Ada Lovelace' ELSE 'Alan Turing' END, "
            "CASE n %% 9 WHEN 0 THEN NULL ELSE 'DE89370400440532013000' END, date '1950-01-01' + n, "
            "jsonb_build_object('bio', E'born in London\\n\\t\\\\ ' || n, 'phone', '+44 07700900461', 'none', NULL), "
            "convert_to('p' || n || '@corp.example', 'UTF8') FROM generate_series(1, %s) n",
            "INSERT INTO letters "
            "SELECT id, email, number, E'dear\\tMr Turing\\n\\\\.\\n' || id FROM people WHERE id %% 3 > 0",
            "INSERT INTO archive.letters SELECT 'to Ada Lovelace', date '2001-01-01' + n FROM generate_series(1, 50) n",
            "INSERT INTO \"Odd \"\"(name\" VALUES ('Turing'), (NULL), ('\\.')",
            "REFRESH MATERIALIZED VIEW names",
        ):
            await app.execute(statement.replace("%%", "%").replace("%s", str(people)).encode())


async def masked_copy(
    broker: Postgres, repository: Site, service_id: str, copy: str, *, key: Secret = KEY
) -> list[str]:
    """The parts that were written."""
    await broker.run("stage_copy", StageCopy(id=new_id(), service_id=service_id, copy=copy, masking=RULES), Done)
    await broker.prepare(service_id, copy)
    request = broker.copy_request(service_id, copy, repository.open_write(copy))
    asked = CopyData(
        id=request.id,
        service_id=service_id,
        copy=copy,
        grant=request.grant,
        masking=MaskingOrder(rules=RULES, key=key),
    )
    copied = await broker.run("copy", asked, Copied)
    assert copied.masked is not None
    assert copied.masked.rules == rules_digest(RULES)
    assert copied.masked.columns == 12
    repository.repository.commit(copy)
    await broker.discard(copy)
    return [part.name for part in copied.parts]


async def test_what_is_restored_joins_and_holds_no_original_value(
    either: Postgres, parallel: Postgres, repository: Site
) -> None:
    broker = either
    source, target, copy = new_id(), new_id(), new_id()
    await fill(broker, source)
    parts = await masked_copy(broker, repository, source, copy)
    assert any(part.startswith("rows-") for part in parts) == (broker is parallel)
    stream = b"".join([await repository.read(copy, part) for part in parts])
    for hidden in HIDDEN:
        assert hidden.encode() not in stream, hidden
        assert hidden.encode().hex().encode() not in stream, hidden
    await broker.provision(target, restore=repository.open_read(copy))
    async with await broker.connect(source) as before, await broker.connect(target) as after:
        for query in (
            "SELECT count(*), count(DISTINCT email), count(iban), count(DISTINCT number), min(id), max(id) FROM people",
            "SELECT count(*) FROM letters l JOIN people p ON sender = email AND person_number = number AND l.id = p.id",
            "SELECT count(*) FROM archive.letters_1",
            'SELECT count(*), count("a, (b") FROM "Odd ""(name"',
            "SELECT count(*) FROM people WHERE iban IS NULL OR iban ~ '^[A-Z]{2}[0-9]{20}$'",
        ):
            assert await rows(after, query) == await rows(before, query), query
        assert await rows(after, "SELECT count(*) FROM people WHERE shouted <> upper(name)") == [(0,)]
        assert await rows(after, "SELECT count(*) FROM names JOIN people USING (id, name)") == [(3000,)]
        kinds = "count(DISTINCT name), count(DISTINCT profile->>'phone'), count(DISTINCT profile->>'bio')"
        assert await rows(after, f"SELECT {kinds} FROM people") == [(2, 1, 1)]
        assert await rows(after, "SELECT DISTINCT body FROM archive.letters") == [("REDACTED",)]
        everything = str(await rows(after, "SELECT people, letters FROM people LEFT JOIN letters USING (id)"))
        assert not [hidden for hidden in HIDDEN if hidden in everything]
        shifts = await rows(after, "SELECT DISTINCT born - date '1950-01-01' - id FROM people")
        assert len(shifts) == 1
        assert shifts != [(0,)]


async def test_another_key_makes_other_values_and_the_same_key_the_same(broker: Postgres, repository: Site) -> None:
    await fill(broker, "keys", people=50)
    for copy, key in (("keys-1", "one"), ("keys-2", "one"), ("keys-3", "two")):
        await masked_copy(broker, repository, "keys", copy, key=Secret(value=key))
        await broker.provision(f"{copy}-r", restore=repository.open_read(copy))
    found = []
    for copy in ("keys-1", "keys-2", "keys-3"):
        async with await broker.connect(f"{copy}-r") as app:
            found.append(
                await rows(app, "SELECT id, email, number, iban FROM people WHERE iban IS NOT NULL ORDER BY id")
            )
    assert found[0] == found[1]
    assert not set(map(str, found[0])) & set(map(str, found[2]))


async def test_a_column_that_no_rule_classifies_refuses_the_copy_before_and_at_its_moment(
    broker: Postgres, repository: Site
) -> None:
    await fill(broker, "closed", people=5)
    stage = StageCopy(id=new_id(), service_id="closed", copy="copy-closed", masking=RULES)
    await broker.run("stage_copy", stage, Done)
    async with await broker.connect("closed") as app:  # it came when the rules had been looked at
        await app.execute("ALTER TABLE people ADD COLUMN diary text DEFAULT 'Dear Turing'")
    again = StageCopy(id=new_id(), service_id="closed", copy="copy-closed-2", masking=RULES)
    problem = await broker.fails("stage_copy", again)
    assert problem.field == "people.diary"
    assert "no rule says what becomes of column people.diary" in problem.message
    assert "people.diary: keep" in (problem.remedy or "")
    await broker.prepare("closed", "copy-closed")
    request = broker.copy_request("closed", "copy-closed", repository.open_write("copy-closed"))
    asked = CopyData(
        id=request.id,
        service_id="closed",
        copy="copy-closed",
        grant=request.grant,
        masking=MaskingOrder(rules=RULES, key=KEY),
    )
    assert (await broker.fails("copy", asked)).field == "people.diary"
    await broker.discard("copy-closed")


async def test_a_preview_shows_rows_of_a_running_database_masked(broker: Postgres) -> None:
    await fill(broker, "previewed", people=5)
    asked = PreviewMasking(service_id="previewed", masking=MaskingOrder(rules=RULES, key=KEY), rows=3)
    shown = await broker.ask("preview_masking", asked, MaskingPreview)
    assert shown.problems == ()
    assert {each.table: len(each.after) for each in shown.rows}["people"] == 3
    assert not [hidden for hidden in HIDDEN if hidden in repr(shown)]
