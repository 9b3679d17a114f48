"""Copies: of one moment whatever is done afterwards, restored elsewhere, whole or not at all."""

import asyncio
import os
import signal
from collections.abc import Collection
from pathlib import Path

import psycopg
import pytest

from schemas.brokers import CopyGrant, PrepareCopy, Prepared, Provisioned
from schemas.ids import new_id
from tests.integration.broker_process import eventually
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import PASSWORD, Postgres, rows

EVERYTHING = "SELECT id, title, md5(body) FROM ideas ORDER BY id"


async def fill(broker: Postgres, service_id: str, *, count: int = 2000, width: int = 500) -> None:
    await broker.provision(service_id)
    async with await broker.connect(service_id) as app:
        await app.execute("CREATE TABLE ideas (id serial PRIMARY KEY, title text NOT NULL, body text)")
        await app.execute("CREATE TABLE votes (idea int REFERENCES ideas, at timestamptz DEFAULT now())")
        await app.execute("CREATE SEQUENCE tickets")
        await app.execute("CREATE VIEW titles AS SELECT title FROM ideas")
        await app.execute(
            "INSERT INTO ideas (title, body) SELECT 'idea ' || n, repeat(md5(n::text), %s) "
            "FROM generate_series(1, %s) n",
            (width // 32, count),
        )
        await app.execute("INSERT INTO votes (idea) SELECT id FROM ideas")
        await app.execute("SELECT setval('tickets', 41)")


async def save(broker: Postgres, repository: Site, service_id: str, copy: str) -> CopyGrant:
    """A committed copy; the grant to read it."""
    await broker.prepare(service_id, copy)
    await broker.copy(service_id, copy, repository.open_write(copy))
    repository.repository.commit(copy)
    await broker.discard(copy)
    return repository.open_read(copy)


def children(pid: int, program: str, *, besides: Collection[int] = ()) -> list[int]:
    """The running children of a process that run ``program``, ``besides`` those of moments that other tests hold."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if Path(f"/proc/{child}/exe").readlink().name == program and int(child) not in besides:
                found.append(int(child))
        except OSError:
            continue
    return found


async def test_a_copy_shows_the_moment_whatever_is_done_after_it(broker: Postgres, repository: Site) -> None:
    await fill(broker, "moment", count=20_000)
    async with await broker.connect("moment") as app:
        before = await rows(app, EVERYTHING)
        prepared = await broker.prepare("moment", "copy-moment")
        assert prepared.level == "application"
        assert "snapshot" in prepared.moment
        await app.execute("INSERT INTO ideas (title) SELECT 'later' FROM generate_series(1, 100)")
        await app.execute("UPDATE ideas SET title = 'changed' WHERE id < 50")
        await app.execute("SELECT setval('tickets', 7)")
        async with await broker.connect("moment") as other:
            truncating = asyncio.create_task(other.execute("TRUNCATE ideas RESTART IDENTITY CASCADE"))
            assert await broker.prepare("moment", "copy-moment") == prepared
            copied = await broker.copy("moment", "copy-moment", repository.open_write("copy-moment"))
            assert not truncating.done()
            await broker.discard("copy-moment")
            await truncating
        assert await rows(app, EVERYTHING) == []
    assert copied.copy_format == "pg_dump-custom"
    assert [part.name for part in copied.parts] == ["database", "sequences", "statistics"]
    assert copied.engine_version.startswith("18")
    repository.repository.commit("copy-moment")
    provisioned = await broker.provision("moment-2", restore=repository.open_read("copy-moment"))
    assert provisioned.restored_bytes == sum(part.size for part in copied.parts)
    async with await broker.connect("moment-2") as app:
        assert await rows(app, EVERYTHING) == before
        assert await rows(app, "SELECT nextval('tickets')") == [(42,)]
        assert await rows(app, "INSERT INTO ideas (title) VALUES ('new') RETURNING id") == [(20_001,)]
        assert await rows(app, "SELECT count(*) FROM votes") == [(20_000,)]
        await app.execute("ALTER TABLE votes ADD COLUMN weight int")
        await app.execute("DROP VIEW titles")


async def test_the_estimate_of_a_copy_counts_wide_values_too(broker: Postgres) -> None:
    await broker.provision("wide")
    async with await broker.connect("wide") as app:
        await app.execute("CREATE TABLE files (id int PRIMARY KEY, content bytea)")
        await app.execute("ALTER TABLE files ALTER COLUMN content SET STORAGE EXTERNAL")
        await app.execute("INSERT INTO files SELECT n, repeat('x', 100000)::bytea FROM generate_series(1, 50) n")
    prepared = await broker.prepare("wide", new_id())
    assert prepared.estimated_bytes is not None
    assert prepared.estimated_bytes > 5_000_000


async def test_a_restore_may_be_repeated_and_leaves_the_source_alone(broker: Postgres, repository: Site) -> None:
    await fill(broker, "source", count=100)
    grant = await save(broker, repository, "source", "copy-source")
    one, other = await asyncio.gather(
        broker.provision("target-1", restore=grant), broker.provision("target-2", restore=grant)
    )
    assert one.resource["database"] != other.resource["database"]
    async with await broker.connect("target-1") as app:
        await app.execute("DELETE FROM votes; DELETE FROM ideas")
    assert await broker.provision("target-1", restore=grant) == one
    async with await broker.connect("target-2") as app, await broker.connect("source") as source:
        assert await rows(app, EVERYTHING) == await rows(source, EVERYTHING)
        assert len(await rows(app, EVERYTHING)) == 100


async def test_a_moment_that_the_broker_lost_is_never_fixed_anew(own_broker: Postgres, repository: Site) -> None:
    await fill(own_broker, "lost", count=10)
    await own_broker.prepare("lost", "copy-lost")
    await own_broker.kill()
    await own_broker.start()
    request = PrepareCopy(id=new_id(), service_id="lost", copy="copy-lost")
    assert (await own_broker.refuses("prepare_copy", request, Prepared)).code == "moment_lost"
    copy = own_broker.copy_request("lost", "copy-lost", repository.open_write("copy-lost"))
    problem = await own_broker.fails("copy", copy)
    assert (problem.code, problem.temporary) == ("moment_lost", False)
    await own_broker.prepare("lost", "copy-lost-2")


async def test_a_moment_is_let_go_after_its_time_and_when_discarded(broker: Postgres, repository: Site) -> None:
    await fill(broker, "held", count=10)
    await broker.prepare("held", "copy-short", hold_seconds=0.2)
    async with await broker.connect("held") as app:
        await asyncio.wait_for(app.execute("TRUNCATE votes"), 60)
        await broker.prepare("held", "copy-discarded")
        await broker.discard("copy-discarded")
        await broker.discard("copy-never-heard-of")
        await asyncio.wait_for(app.execute("TRUNCATE votes"), 60)
    for copy in ("copy-short", "copy-discarded", "copy-never-heard-of"):
        request = PrepareCopy(id=new_id(), service_id="held", copy=copy)
        assert (await broker.refuses("prepare_copy", request, Prepared)).code == "moment_lost"
    problem = await broker.fails("copy", broker.copy_request("held", "copy-x", repository.open_write("copy-x")))
    assert problem.code == "moment_lost"


async def test_no_secret_is_among_the_arguments_of_a_dump(broker: Postgres) -> None:
    await fill(broker, "argv", count=20_000)
    others = children(broker.pid, "pg_dump")
    await broker.prepare("argv", "copy-argv")
    (dump,) = children(broker.pid, "pg_dump", besides=others)
    arguments = Path(f"/proc/{dump}/cmdline").read_text()
    assert "--snapshot=" in arguments
    assert broker.server.password not in arguments
    assert PASSWORD not in arguments
    await broker.discard("copy-argv")
    assert children(broker.pid, "pg_dump", besides=others) == []


async def test_another_try_after_a_cancelled_copy_shows_the_same_moment(broker: Postgres, repository: Site) -> None:
    await fill(broker, "cancel", count=20_000)
    async with await broker.connect("cancel") as app:
        before = await rows(app, EVERYTHING)
        others = children(broker.pid, "pg_dump")
        await broker.prepare("cancel", "copy-cancel")
        (dump,) = children(broker.pid, "pg_dump", besides=others)
        os.kill(dump, signal.SIGSTOP)
        request = broker.copy_request("cancel", "copy-cancel", repository.open_write("copy-cancel"))
        assert (await broker.begin("copy", request)).state == "running"
        assert (await broker.begin("copy", request)).state == "running"
        assert (await broker.cancel(request.id)).state == "cancelled"
        assert children(broker.pid, "pg_dump", besides=others) == []
        assert (await broker.begin("copy", request)).state == "cancelled"
        assert (await broker.status(request.id)).state == "cancelled"
        # between the tries nothing but the session of the moment holds the tables
        await app.execute("SELECT setval('tickets', 7)")
        await app.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await app.execute("TRUNCATE ideas CASCADE")
        await app.execute("UPDATE ideas SET title = 'changed'")
        await repository.settled("copy-cancel")
        await broker.copy("cancel", "copy-cancel", repository.open_write("copy-cancel"))
        repository.repository.commit("copy-cancel")
        await broker.discard("copy-cancel")
    await broker.provision("cancel-2", restore=repository.open_read("copy-cancel"))
    async with await broker.connect("cancel-2") as app:
        assert await rows(app, EVERYTHING) == before
        assert await rows(app, "SELECT nextval('tickets')") == [(42,)]


async def test_discarding_ends_a_copy_that_streams(broker: Postgres, repository: Site) -> None:
    await fill(broker, "ends", count=20_000)
    others = children(broker.pid, "pg_dump")
    await broker.prepare("ends", "copy-ends")
    (dump,) = children(broker.pid, "pg_dump", besides=others)
    os.kill(dump, signal.SIGSTOP)
    request = broker.copy_request("ends", "copy-ends", repository.open_write("copy-ends"))
    await broker.begin("copy", request)
    await broker.discard("copy-ends")
    problem = (await broker.ended(request.id, seconds=10)).problem
    assert problem is not None
    assert problem.code == "moment_lost"
    assert children(broker.pid, "pg_dump", besides=others) == []


async def test_a_dump_that_dies_fails_the_copy_with_what_it_said(broker: Postgres, repository: Site) -> None:
    await fill(broker, "dies", count=20_000)
    await broker.prepare("dies", "copy-dies")
    async with await broker.admin() as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'calque copy%' "
            "AND state = 'active'"
        )
    problem = await broker.fails("copy", broker.copy_request("dies", "copy-dies", repository.open_write("copy-dies")))
    assert "pg_dump" in problem.message or problem.code == "moment_lost"
    await broker.discard("copy-dies")


async def test_a_restore_that_is_cancelled_leaves_nothing(broker: Postgres, repository: Site) -> None:
    await fill(broker, "big", count=60_000)
    grant = await save(broker, repository, "big", "copy-big")
    request = broker.provision_request("cancelled", restore=grant)
    await broker.begin("provision", request)
    await eventually(lambda: bool(children(broker.pid, "pg_restore")), seconds=10, what="pg_restore runs")
    assert (await broker.cancel(request.id)).state == "cancelled"
    assert children(broker.pid, "pg_restore") == []
    assert await broker.describe("cancelled") == ()
    assert (await broker.begin("provision", request)).state == "cancelled"


@pytest.mark.full
async def test_a_broker_killed_in_a_restore_begins_it_anew(own_broker: Postgres, repository: Site) -> None:
    await fill(own_broker, "killed", count=60_000)
    grant = await save(own_broker, repository, "killed", "copy-killed")
    request = own_broker.provision_request("killed-2", restore=grant)
    await own_broker.begin("provision", request)
    await eventually(lambda: bool(children(own_broker.pid, "pg_restore")), seconds=10, what="pg_restore runs")
    await own_broker.kill()
    await own_broker.start()
    half = await own_broker.describe("killed-2")
    assert {one.labels.get("service_id") for one in half} == {"killed-2"}
    assert (await own_broker.run("provision", request, Provisioned)).restored_bytes > 0
    async with await own_broker.connect("killed-2") as app, await own_broker.connect("killed") as source:
        assert await rows(app, EVERYTHING) == await rows(source, EVERYTHING)
    await own_broker.kill()
    await own_broker.start()
    assert (await own_broker.begin("provision", request)).state == "succeeded"


async def test_a_copy_that_is_no_dump_is_refused_and_cleaned_up(broker: Postgres, repository: Site) -> None:
    await repository.write_copy("copy-junk", database=b"this is no dump" * 1000)
    request = broker.provision_request("junk", restore=repository.open_read("copy-junk"))
    problem = await broker.fails("provision", request)
    assert "pg_restore" in problem.message
    assert not problem.temporary
    assert await broker.describe("junk") == ()


async def test_deprovision_takes_prepared_moments_with_it(broker: Postgres) -> None:
    await fill(broker, "prepared", count=10)
    others = children(broker.pid, "pg_dump")
    await broker.prepare("prepared", "copy-prepared")
    await broker.deprovision("prepared")
    request = PrepareCopy(id=new_id(), service_id="prepared", copy="copy-prepared-2")
    assert (await broker.refuses("prepare_copy", request, Prepared)).code == "not_found"
    assert children(broker.pid, "pg_dump", besides=others) == []
