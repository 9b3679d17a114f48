"""A server that lacks something that a copy needs: it is said by name before anything is restored."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from brokers.postgres.contents import Contents, Entry
from brokers.postgres.fitting import require_all
from brokers.postgres.logins import Login
from brokers.postgres.server import Server
from schemas.brokers import CopyGrant
from schemas.ids import new_id
from schemas.problems import CalqueError, Problem
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres
from tests.integration.postgres.test_copies import save
from tests.servers import RunningPostgres


def extension(place: Path, name: str, *, trusted: bool) -> None:
    """One that consists of a function, for sessions that look for extensions in ``place``."""
    (place / "extension").mkdir(mode=0o755, exist_ok=True)
    control = f"default_version = '1.0'\ntrusted = {str(trusted).lower()}\nrelocatable = true\n"
    (place / "extension" / f"{name}.control").write_text(control)
    script = f"CREATE FUNCTION {name}_said() RETURNS int LANGUAGE sql AS 'SELECT 1';\n"
    (place / "extension" / f"{name}--1.0.sql").write_text(script)


@pytest.fixture
def extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that a server's user can look into."""
    place = tmp_path_factory.mktemp("extensions")
    for step in (place, *place.parents):
        if step.stat().st_uid == Path("/proc/self").stat().st_uid and not step.stat().st_mode & 0o001:
            step.chmod(step.stat().st_mode | 0o011)
    return place


async def refused(broker: Postgres, restore: CopyGrant) -> Problem:
    """What a restore ends with; nothing of it is left."""
    target = new_id()
    problem = await broker.fails("provision", broker.provision_request(target, restore=restore))
    assert await broker.describe(target) == ()
    assert not problem.temporary
    return problem


async def test_an_extension_that_the_server_lacks_is_named_before_anything_is_restored(
    either: Postgres, repository: Site, extensions: Path
) -> None:
    extension(extensions, "odd_one", trusted=True)
    source = new_id()
    await either.provision(source)
    bound = await either.bind(source)
    async with await either.admin(database=bound.attributes["database"]) as admin:
        await admin.execute(f"SET extension_control_path = '{extensions}:$system'".encode())
        await admin.execute("CREATE EXTENSION odd_one")
    problem = await refused(either, await save(either, repository, source, new_id()))
    assert problem.code == "lacking"
    assert 'the server lacks the extension "odd_one"' in problem.message
    assert "install it" in (problem.remedy or "")


def entry(kind: str, name: str, statement: str) -> Entry:
    return Entry(
        number=1, kind=kind, schema="public", name=name, section="pre-data", statement=statement, copy="", needs=()
    )


@pytest.mark.parametrize(
    ("version", "entries", "code", "said"),
    [
        ("99.1", [], "wrong_version", "PostgreSQL 99"),
        ("18.4", [entry("EXTENSION", "plpgsql", "")], "", ""),
        ("18.4", [entry("EXTENSION", "no_such", "")], "lacking", '"no_such"'),
        ("18.4", [entry("EXTENSION", "vector", "")], "lacking", "only a superuser"),
        (
            "18.4",
            [entry("COLLATION", "odd", "CREATE COLLATION public.odd (provider = libc, locale = 'no_SUCH.place');\n")],
            "lacking",
            "public.odd",
        ),
        (
            "18.4",
            [entry("COLLATION", "good", "CREATE COLLATION public.good (provider = libc, locale = 'C');\n")],
            "",
            "",
        ),
        (
            "18.4",
            [entry("TABLE", "t", 'CREATE TABLE public.t (\n    a text COLLATE pg_catalog."xx-odd-x-icu"\n);\n')],
            "lacking",
            '"xx-odd-x-icu"',
        ),
        ("18.4", [entry("TABLE", "t", 'CREATE TABLE public.t (\n    a text COLLATE pg_catalog."C"\n);\n')], "", ""),
        ("18.4", [entry("ENCODING", "ENCODING", "SET client_encoding = 'LATIN1';\n")], "", ""),
    ],
)
async def test_what_a_server_must_have(
    broker: Postgres, version: str, entries: list[Entry], code: str, said: str, postgres_server: RunningPostgres
) -> None:
    service = "fitting"
    await broker.provision(service)
    name = (await broker.bind(service)).attributes["database"]
    contents = Contents(entries)
    contents.server_version = version
    problem = await problem_of(postgres_server, contents, database=name, role=name)
    assert (problem.code if problem else "") == code
    assert said in (problem.message if problem else "")


async def test_a_database_in_a_narrow_encoding_takes_no_copy_of_a_wider_one(postgres_server: RunningPostgres) -> None:
    address = postgres_server.server
    async with await psycopg.AsyncConnection.connect(
        host=address.host, port=address.port, user=address.user, password=postgres_server.password, autocommit=True
    ) as admin:
        await admin.execute("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            contents = Contents([entry("ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n")])
            problem = await problem_of(postgres_server, contents, database="narrow", role=address.user)
            assert problem is not None
            assert "UTF8" in problem.message
            assert "LATIN1" in problem.message
        finally:
            await admin.execute("DROP DATABASE narrow WITH (FORCE)")


async def problem_of(running: RunningPostgres, contents: Contents, *, database: str, role: str) -> Problem | None:
    address = running.server
    login = Login(address.host, address.port, address.user, "postgres", Secret(value=running.password))
    async with Server(lambda: login).session(database=database) as session:
        try:
            await require_all(contents, session, role=role)
        except CalqueError as error:
            return error.problem
    return None
