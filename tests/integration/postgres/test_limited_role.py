"""A server of the user's, where the broker is no superuser: CREATEDB and CREATEROLE are enough, and less is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from brokers.postgres.settings import AdminSection
from bus.connection import Bus
from schemas.brokers import DataServiceHealth, DsbInfo, Health, InfoRequest, PrepareCopy, Prepared
from schemas.ids import new_id
from tests.integration.filesystem.site import Site
from tests.integration.postgres.production import admin
from tests.integration.postgres.services import Postgres, rows
from tests.integration.postgres.test_copies import fill, save
from tests.servers import NatsServer, RunningPostgres

PASSWORD = "limited role's password"


@asynccontextmanager
async def as_role(
    server: RunningPostgres, *, rights: str, directory: Path, bus: Bus, nats_url: str, **settings: Any
) -> AsyncIterator[Postgres]:
    """A broker that logs in, by URL, as a new role with these rights."""
    role = f"limited_{new_id()[-8:]}"
    password_file = directory / "password"
    password_file.write_text(PASSWORD)
    async with await admin(server) as connection:
        made = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
        await connection.execute(made.format(sql.Identifier(role), sql.SQL(rights), sql.Literal(PASSWORD)))
    address = server.server
    url = f"postgresql://{role}@{address.host}:{address.port}/postgres?sslmode=prefer"
    broker = Postgres(
        server,
        bus=bus,
        nats_url=nats_url,
        directory=directory,
        name=role.replace("_", "-"),
        admin={"url": url, "password_file": str(password_file)},
        **settings,
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()
        async with await admin(server) as connection:
            await connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


async def test_a_role_that_may_make_databases_and_roles_is_enough(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path, repository: Site
) -> None:
    async with as_role(
        postgres_server, rights="CREATEDB CREATEROLE", directory=tmp_path, bus=bus, nats_url=nats_server.url
    ) as broker:
        info = await broker.ask("info", InfoRequest(), DsbInfo)
        assert "no superuser" in info.limits[0]
        before = {one.name for one in await broker.describe()}
        await fill(broker, "limited", count=300)
        grant = await save(broker, repository, "limited", "copy-limited")
        await broker.provision("limited-2", restore=grant)
        async with await broker.connect("limited-2") as app:
            await app.execute("CREATE TABLE of_the_app (n int)")
            await broker.bind("limited-2", binding="b2")
            await broker.unbind("limited-2", binding="b1")
        async with await broker.connect("limited-2", binding="b2") as app:
            assert await rows(app, "SELECT count(*) FROM of_the_app") == [(0,)]
            await broker.deprovision("limited-2")
        await broker.deprovision("limited")
        assert {one.name for one in await broker.describe()} <= before
        assert (await broker.ask("health", DataServiceHealth(), Health)).healthy


async def test_what_a_role_without_rights_can_t_do_is_told_before_anybody_tries(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    async with as_role(
        postgres_server, rights="CREATEDB", directory=tmp_path, bus=bus, nats_url=nats_server.url
    ) as broker:
        info = await broker.ask("info", InfoRequest(), DsbInfo)
        assert info.can_attach
        assert "lacks CREATEROLE" in info.limits[0]
        health = await broker.ask("health", DataServiceHealth(), Health)
        assert not health.healthy
        assert "ALTER ROLE" in health.message
        problem = await broker.fails("provision", broker.provision_request("refused"))
        assert (problem.code, problem.temporary) == ("not_permitted", False)


async def test_a_pg_dump_that_is_older_than_the_server_is_told_before_it_starts(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.19'\n")
    (programs / "pg_dump").chmod(0o755)
    broker = Postgres(
        postgres_server, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="old", bin_dir=programs
    )
    await broker.start()
    try:
        await broker.provision("old-tools")
        request = PrepareCopy(id=new_id(), service_id="old-tools", copy="copy-old")
        problem = await broker.refuses("prepare_copy", request, Prepared)
        assert problem.code == "program_too_old"
        assert "PostgreSQL 12" in problem.message
        await broker.deprovision("old-tools")
    finally:
        await broker.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda admin: {**admin, "url": "postgresql://u@h/d"}, "either url or host"),
        (lambda admin: {"url": "postgresql://u:hunter2@h/d", "password_file": "/x"}, "password"),
        (lambda admin: {"url": "mysql://u@h/d", "password_file": "/x"}, "PostgreSQL"),
    ],
)
async def test_settings_that_can_t_be_meant_are_refused(
    change: Callable[[dict[str, object]], dict[str, object]], words: str
) -> None:
    usual: dict[str, object] = {"host": "h", "port": 5432, "password_file": "/x"}
    with pytest.raises(ValueError, match=words) as caught:
        AdminSection.model_validate(change(usual))
    assert "hunter2" not in str(caught.value)
