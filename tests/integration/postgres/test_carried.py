"""Grants and policies come along where they name somebody who is at the target too; what a copy can't carry is said
when it is prepared, and is in nobody's way at the restore."""

from __future__ import annotations

from typing import LiteralString

from brokers.postgres.names import database_of
from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.postgres.dumps import dumps_of
from tests.integration.postgres.services import Postgres

OWNERS: tuple[LiteralString, ...] = (
    "CREATE TABLE seen (a int, b int)",
    "CREATE TABLE guarded (who name, what text)",
    "CREATE SCHEMA inner_one",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "INSERT INTO seen VALUES (1, 2)",
    "GRANT SELECT ON seen TO PUBLIC",
    "GRANT UPDATE (a) ON seen TO PUBLIC",
    "GRANT SELECT ON seen TO pg_monitor WITH GRANT OPTION",
    "REVOKE DELETE ON guarded FROM CURRENT_USER",
    "GRANT USAGE ON SCHEMA inner_one TO PUBLIC",
    "REVOKE EXECUTE ON FUNCTION one() FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON guarded FOR SELECT TO CURRENT_USER USING (who = current_user)",
    "COMMENT ON POLICY own ON guarded IS 'one''s own; no more'",
    "CREATE POLICY all_of ON guarded USING (true)",
)
STRANGE: tuple[LiteralString, ...] = (
    'GRANT INSERT ON seen TO "stranger; x"',
    'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "stranger; x"',
    'CREATE POLICY theirs ON guarded TO "stranger; x" USING (true)',
    "COMMENT ON POLICY theirs ON guarded IS 'of others'",
    "CREATE PUBLICATION everything FOR ALL TABLES",
    "CREATE FUNCTION told() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "CREATE EVENT TRIGGER telling ON ddl_command_end EXECUTE FUNCTION told()",
    "COMMENT ON EVENT TRIGGER telling IS 'tells'",
    "SET allow_in_place_tablespaces = on",
    "CREATE TABLESPACE elsewhere LOCATION ''",
    "CREATE TABLE far (n int) TABLESPACE elsewhere",
    "INSERT INTO far VALUES (7)",
    "CREATE SUBSCRIPTION far_away CONNECTION 'host=127.0.0.1 port=1 password=secret' PUBLICATION p "
    "WITH (connect = false)",
)
LEFT: tuple[LiteralString, ...] = (
    "DROP TABLE far",
    "DROP TABLESPACE elsewhere",
    "ALTER SUBSCRIPTION far_away SET (slot_name = NONE)",
    "DROP SUBSCRIPTION far_away",
    'DROP OWNED BY "stranger; x"',
    'DROP ROLE "stranger; x"',
)


async def test_grants_come_along_and_what_can_not_is_said_before(either: Postgres, repository: Site) -> None:
    using = either
    source, target, copy = new_id(), new_id(), new_id()
    await using.provision(source)
    async with await using.connect(source) as app:
        for statement in OWNERS:
            await app.execute(statement)
    async with await using.admin(database=database_of(source)) as admin:
        await admin.execute('CREATE ROLE "stranger; x"')
        try:
            for statement in STRANGE:
                await admin.execute(statement)
            prepared = await using.prepare(source, copy)
            await using.copy(source, copy, repository.open_write(copy))
            await using.discard(copy)  # the moment holds locks
        finally:
            for statement in LEFT:
                await admin.execute(statement)
    repository.repository.commit(copy)
    said = " | ".join(prepared.left_out)
    for word in ("stranger; x", "policies", "elsewhere", "everything", "telling", "far_away"):
        assert word in said
    assert "pg_monitor" not in said
    assert "secret" not in said
    await using.provision(target, restore=repository.open_read(copy))
    texts = await dumps_of((using, source), (using, target), options=("--schema-only",))
    before, after = ([line for line in text.split("\n") if line and not line.startswith("--")] for text in texts)
    left = ("stranger", "theirs", "telling", "everything", "far_away")
    assert not [line for line in after if any(word in line for word in left)]
    rights = ("GRANT", "REVOKE", "ALTER DEFAULT", "CREATE POLICY", "COMMENT ON POLICY")
    told = [line for line in before if line.startswith(rights) and not any(word in line for word in left)]
    assert [line for line in told if line not in after] == []
    for line in (
        "GRANT SELECT ON TABLE public.seen TO PUBLIC;",
        "GRANT UPDATE(a) ON TABLE public.seen TO PUBLIC;",
        "GRANT SELECT ON TABLE public.seen TO pg_monitor WITH GRANT OPTION;",
        "REVOKE ALL ON FUNCTION public.one() FROM PUBLIC;",
        "CREATE POLICY own ON public.guarded FOR SELECT TO the_service USING ((who = CURRENT_USER));",
        "COMMENT ON POLICY own ON public.guarded IS 'one''s own; no more';",
        "CREATE POLICY all_of ON public.guarded USING (true);",
    ):
        assert line in after
    async with await using.admin(database=database_of(target)) as admin:
        assert await (await admin.execute("SELECT n FROM far")).fetchall() == [(7,)]


async def test_a_service_with_nothing_strange_in_it_leaves_nothing_out(broker: Postgres) -> None:
    source, copy = new_id(), new_id()
    await broker.provision(source)
    async with await broker.connect(source) as app:
        for statement in OWNERS:
            await app.execute(statement)
    assert (await broker.prepare(source, copy)).left_out == ()
    await broker.discard(copy)
