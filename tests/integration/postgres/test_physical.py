"""Servers of their own: they outlive the broker, and are copied and restored as files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import msgspec
import psycopg
import pytest
import pytest_asyncio

from brokers.postgres.names import database_of
from brokers.postgres.physical.account import account_for
from brokers.postgres.physical.copies import PHYSICAL_FORMAT, SEGMENT, TARRED_FORMAT, ClusterPart, digest_of
from brokers.postgres.physical.staging import Staged
from brokers.sdk.copystream import CopyWriter, EntrySource
from bus.connection import Bus
from schemas.brokers import (
    CopyGrant,
    DataServiceHealth,
    Done,
    DsbInfo,
    Health,
    InfoRequest,
    Outcome,
    PrepareCopy,
    Prepared,
    Provision,
    Provisioned,
    StageCopy,
)
from schemas.ids import new_id
from tests.integration.broker_process import eventually
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site
from tests.integration.postgres.dumps import dump
from tests.integration.postgres.services import Postgres, rows
from tests.integration.postgres.test_copies import EVERYTHING
from tests.servers import NatsServer, RunningPostgres

SECONDS = 60.0


class Dedicated(Postgres):
    """The broker, whose data services have servers of their own here."""

    async def provision_dedicated(self, service_id: str, *, restore: CopyGrant | None = None) -> Provisioned:
        return await self.run("provision", self.dedicated_request(service_id, restore=restore), Provisioned)

    def dedicated_request(self, service_id: str, *, restore: CopyGrant | None = None) -> Provision:
        request = self.provision_request(service_id, restore=restore)
        copy_format = PHYSICAL_FORMAT if restore else None
        return msgspec.structs.replace(request, plan="dedicated", copy_format=copy_format)

    async def stage(self, service_id: str, copy: str) -> None:
        await self.run("stage_copy", StageCopy(id=new_id(), service_id=service_id, copy=copy), Done)

    async def end(self) -> int:
        """Stop the broker, and whatever servers a test that failed has left behind it; the broker's exit code."""
        code = await self.stop()
        for record in (self.directory / "servers").glob("calque_*/data/postmaster.pid"):
            number = int(record.read_text().split()[0])
            with contextlib.suppress(OSError):
                if Path(f"/proc/{number}/cwd").samefile(record.parent):
                    os.kill(number, signal.SIGQUIT)
        return code

    def place(self, service_id: str) -> Path:
        return self.directory / "servers" / database_of(service_id)

    def server_pid(self, service_id: str) -> int:
        return int((self.place(service_id) / "data" / "postmaster.pid").read_text().split()[0])

    async def fill(self, service_id: str, *, count: int = 500) -> None:
        async with await self.connect(service_id) as app:
            await app.execute("CREATE TABLE ideas (id serial PRIMARY KEY, title text NOT NULL, body text)")
            await app.execute("CREATE SEQUENCE tickets START 41")
            await app.execute("CREATE UNLOGGED TABLE scratch AS SELECT 1 AS n")
            await app.execute(
                "INSERT INTO ideas (title, body) SELECT 'idea ' || n, repeat(md5(n::text), 10) "
                "FROM generate_series(1, %s) n",
                (count,),
            )

    def environment(self, service_id: str, port: str) -> dict[str, str]:
        """The superuser of its server."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": port,
            "PGUSER": "postgres",
            "PGPASSWORD": (self.place(service_id) / "superuser.password").read_text(),
        }

    def dumped(self, service_id: str, port: str) -> str:
        return dump(
            database_of(service_id),
            "--no-unlogged-table-data",
            bin_dir=self.server.server.bin_dir,
            environment=self.environment(service_id, port),
        )

    async def check_pages(self, service_id: str, port: str) -> None:
        """PostgreSQL reads all pages for a backup, and looks at their checksums."""
        program = self.server.server.bin_dir / "pg_basebackup"
        with tempfile.TemporaryDirectory() as directory:
            arguments = ("-D", f"{directory}/base", "-Ft", "-X", "none", "-c", "fast", "--no-manifest")
            backup = await asyncio.create_subprocess_exec(
                program, *arguments, env=self.environment(service_id, port), stderr=asyncio.subprocess.PIPE
            )
            _, said = await backup.communicate()
        assert (backup.returncode, b"checksum" in said) == (0, False), said


def dedicated_broker(server: RunningPostgres, bus: Bus, nats: NatsServer, directory: Path, name: str) -> Dedicated:
    if not account_for(None).may_run(server.server.bin_dir / "postgres"):
        pytest.skip("the user of servers can't reach the programs of PostgreSQL where they are installed")
    return Dedicated(
        server,
        bus=bus,
        nats_url=nats.url,
        directory=directory,
        name=name,
        dedicated={"directory": str(directory / "servers")},
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def dedicated(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Dedicated]:
    broker = dedicated_broker(postgres_server, bus, nats_server, tmp_path_factory.mktemp("dedicated"), "dedicated")
    await broker.start()
    try:
        yield broker
    finally:
        try:
            for service in ("own", "own-2", "own-3", "own-tarred", "own-untarred"):
                await broker.deprovision(service)
            assert list((broker.directory / "servers").glob("calque_*")) == []
        finally:
            code = await broker.end()
    assert code == 0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def near(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A repository on the same machine, which reads staged files itself, as they are in the product."""
    directory = tmp_path_factory.mktemp("near")
    async with Site("north", directory=directory, authority=Authority(directory), near=True) as site:
        yield site


async def save(broker: Dedicated, repository: Site, service_id: str, copy: str) -> CopyGrant:
    await broker.stage(service_id, copy)
    await broker.prepare(service_id, copy)
    await broker.copy(service_id, copy, repository.open_write(copy))
    repository.repository.commit(copy)
    await broker.discard(copy)
    return repository.open_read(copy)


async def test_a_physical_copy_shows_its_moment_and_becomes_a_server_of_its_own(
    dedicated: Dedicated, near: Site
) -> None:
    broker, repository = dedicated, near
    info = await broker.ask("info", InfoRequest(), DsbInfo)
    assert "dedicated" in {plan.name for plan in info.plans}
    assert PHYSICAL_FORMAT in info.copy_formats
    own = await broker.provision_dedicated("own")
    assert await broker.provision_dedicated("own") == own
    await broker.fill("own")
    async with await broker.connect("own") as app:
        await broker.stage("own", "copy-own")
        await app.execute("INSERT INTO ideas (title) VALUES ('after the backup began')")
        before = await asyncio.to_thread(broker.dumped, "own", own.resource["port"])
        everything = await rows(app, EVERYTHING)
        prepared = await broker.prepare("own", "copy-own")
        assert (prepared.level, prepared.moment.split(" at ")[0][:21]) == ("application", "restore point calque_")
        await app.execute("CREATE TEMPORARY TABLE passing AS SELECT 1 AS n")
        await app.execute("DELETE FROM ideas WHERE id > 100")
        # the moment outlives the broker, and so does the server
        await broker.kill()
        await app.execute("INSERT INTO ideas (title) VALUES ('after the moment')")
        await broker.start()
        assert await broker.prepare("own", "copy-own") == prepared
        copied = await broker.copy("own", "copy-own", repository.open_write("copy-own"))
    assert (copied.copy_format, copied.method) == (PHYSICAL_FORMAT, "physical")
    assert [part.name for part in copied.parts] == ["cluster", "base", "wal"]
    assert copied.engine_version.startswith("18")
    repository.repository.commit("copy-own")
    await broker.discard("copy-own")
    request = PrepareCopy(id=new_id(), service_id="own", copy="copy-own")
    assert (await broker.refuses("prepare_copy", request, Prepared)).code == "moment_lost"
    old = await broker.bind("own")
    restored = await broker.provision_dedicated("own-2", restore=repository.open_read("copy-own"))
    assert (restored.method, restored.restored_bytes) == ("physical", sum(part.size for part in copied.parts))
    assert restored.resource["port"] != own.resource["port"]
    assert await asyncio.to_thread(broker.dumped, "own-2", restored.resource["port"]) == before
    # nobody's old credentials
    with pytest.raises(psycopg.OperationalError, match=r"authentication failed|does not exist"):
        await psycopg.AsyncConnection.connect(
            host="127.0.0.1",
            port=int(restored.resource["port"]),
            user=old.attributes["user"],
            password=old.secrets["password"].value,
            dbname=restored.resource["database"],
        )
    async with await broker.connect("own-2") as app:
        assert await rows(app, EVERYTHING) == everything
        assert await rows(app, "SELECT nextval('tickets')") == [(41,)]
        await app.execute("CREATE TABLE of_the_app (n int)")
        slots = await rows(app, "SELECT count(*) FROM pg_replication_slots")
        assert slots == [(0,)]
    # a server that was restored is copied as any other, on its own line of time
    again = await save(broker, repository, "own-2", "copy-own-2")
    await broker.provision_dedicated("own-3", restore=again)
    async with await broker.connect("own-3") as app:
        assert await rows(app, "SELECT count(*) FROM of_the_app") == [(0,)]
        assert await rows(app, EVERYTHING) == everything
    refused = msgspec.structs.replace(broker.provision_request("own-small", restore=again), copy_format=PHYSICAL_FORMAT)
    assert (await broker.fails("provision", refused)).field == "copy_format"


async def test_attempts_at_once_make_one_server(dedicated: Dedicated) -> None:
    service = new_id()
    first, *others = await asyncio.gather(*(dedicated.provision_dedicated(service) for _ in range(3)))
    pid = dedicated.server_pid(service)
    assert others == [first, first]
    await dedicated.fill(service)
    assert await dedicated.provision_dedicated(service) == first
    assert dedicated.server_pid(service) == pid
    async with await dedicated.connect(service) as app:
        assert await rows(app, "SELECT count(*) FROM ideas") == [(500,)]
    await dedicated.deprovision(service)


@pytest.mark.full
async def test_a_server_that_died_is_started_again_on_its_port(dedicated: Dedicated) -> None:
    first = await dedicated.provision_dedicated("own")
    async with await dedicated.connect("own") as app:
        await app.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
    number = dedicated.server_pid("own")
    os.kill(number, signal.SIGQUIT)

    def another() -> bool:
        try:
            return dedicated.server_pid("own") != number
        except (OSError, ValueError, IndexError):
            return False

    await eventually(another, seconds=SECONDS, what="another server runs")
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not (await dedicated.ask("health", DataServiceHealth(service_id="own"), Health)).healthy:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)
    assert await dedicated.provision_dedicated("own") == first
    async with await dedicated.connect("own") as app:
        assert await rows(app, "SELECT count(*) FROM kept") == [(0,)]


@pytest.mark.full
async def test_a_kill_of_the_broker_leaves_no_half_of_a_server(dedicated: Dedicated, repository: Site) -> None:
    """At several moments of a stage, a copy and a restore; what is asked for again succeeds."""
    broker = dedicated
    await broker.provision_dedicated("own")
    async with await broker.connect("own") as app:
        await app.execute("CREATE TABLE IF NOT EXISTS many AS SELECT n, md5(n::text) FROM generate_series(1, 200000) n")
    for number, seconds in enumerate((0.0, 0.3)):
        copy = f"copy-killed-{number}"
        stage = StageCopy(id=new_id(), service_id="own", copy=copy)
        await killed(broker, broker.begin("stage_copy", stage), after=seconds)
        await broker.run("stage_copy", stage, Done)
        prepared = await broker.prepare("own", copy)
        request = broker.copy_request("own", copy, repository.open_write(copy))
        await killed(broker, broker.begin("copy", request), after=seconds)
        assert await broker.prepare("own", copy) == prepared
        await repository.settled(copy)
        await broker.copy("own", copy, repository.open_write(copy))
        repository.repository.commit(copy)
        await broker.discard(copy)
        restore = broker.dedicated_request("own-killed", restore=repository.open_read(copy))
        await killed(broker, broker.begin("provision", restore), after=seconds * 4)
        restored = await broker.run("provision", restore, Provisioned)
        own = await broker.provision_dedicated("own")
        dumps = [
            await asyncio.to_thread(broker.dumped, service, port)
            for service, port in (("own", own.resource["port"]), ("own-killed", restored.resource["port"]))
        ]
        assert dumps[0] == dumps[1]
        await broker.deprovision("own-killed")
        assert await broker.describe("own-killed") == ()


async def killed(broker: Dedicated, begun: Awaitable[Outcome], *, after: float) -> None:
    """The operation begins, and the broker is killed and started again, sooner or later."""
    await begun
    await asyncio.sleep(after)
    await broker.kill()
    await broker.start()


@pytest.mark.full
async def test_files_of_another_major_version_are_refused_before_anything_is_made(
    dedicated: Dedicated, repository: Site
) -> None:
    copy = "copy-of-12"
    part = ClusterPart(major=12, version="12.1", database=database_of("x"), point=f"calque_{'0' * 24}", lsn="0/0")
    await repository.write(copy, "cluster", msgspec.json.encode(part))
    await repository.write(copy, "base", b"")
    await CopyWriter(repository.open_write(copy)).write_entries("wal", nothing())
    repository.repository.commit(copy)
    request = dedicated.dedicated_request("own-12", restore=repository.open_read(copy))
    problem = await dedicated.fails("provision", request)
    assert (problem.code, problem.temporary) == ("wrong_version", False)
    assert "PostgreSQL 12" in str(problem.remedy)
    assert await dedicated.describe("own-12") == ()


@pytest.mark.full
@pytest.mark.parametrize("way", ["near", "repository"])
async def test_a_copy_after_another_reads_only_files_that_changed(
    way: str, dedicated: Dedicated, request: pytest.FixtureRequest
) -> None:
    broker, service = dedicated, f"own-again-{way}"
    repository: Site = request.getfixturevalue(way)
    own = await broker.provision_dedicated(service)
    await broker.fill(service)
    async with await broker.connect(service) as app:
        for number in range(8):
            await app.execute(f"CREATE TABLE table_{number} AS SELECT n, md5(n::text) FROM generate_series(1, 3000) n")
            await app.execute(f"CREATE INDEX ON table_{number} (n)")
        await app.execute("VACUUM")  # else whoever reads the rows first notes in them that they are committed
        await save(broker, repository, service, f"{service}-first")
        await app.execute("UPDATE table_3 SET md5 = 'another' WHERE n % 50 = 0")
        await app.execute("DROP TABLE table_4")
        await app.execute("TRUNCATE table_5")
        await app.execute("INSERT INTO table_5 VALUES (1, 'one')")
        await app.execute("CREATE TABLE table_8 AS SELECT * FROM table_0")
        await app.execute("SELECT nextval('tickets')")
        nodes = dict(
            await rows(
                app, "SELECT relname, pg_relation_filepath(oid) FROM pg_class WHERE relname ~ '^(table_|ideas$)'"
            )
        )
        await broker.stage(service, f"{service}-second")
        await app.execute("INSERT INTO table_6 VALUES (0, 'while the copy is prepared')")
        await broker.prepare(service, f"{service}-second")
    # Whoever reads what did not change reads something else.
    place = broker.place(service) / "staged" / digest_of(f"{service}-second")
    staged = msgspec.json.decode((place / "staged.json").read_bytes(), type=Staged)
    untouched = {nodes[name] for name in ("table_0", "table_1", "table_2", "table_6", "table_7", "ideas")}
    with (place / "content").open("r+b") as content:
        for file in staged.files:
            if file.path in untouched:
                content.seek(file.at)
                content.write(b"nonsense" * (file.size // 8))
                untouched.remove(file.path)
    assert not untouched
    await broker.copy(
        service, f"{service}-second", repository.open_write(f"{service}-second", parent=f"{service}-first")
    )
    repository.repository.commit(f"{service}-second")
    await broker.discard(f"{service}-second")
    restored = await broker.provision_dedicated(f"{service}-2", restore=repository.open_read(f"{service}-second"))
    async with await broker.connect(f"{service}-2") as app:
        assert await rows(app, "SELECT md5 FROM table_6 WHERE n = 0") == [("while the copy is prepared",)]
        await app.execute("DELETE FROM table_6 WHERE n = 0")
        await app.execute("SET enable_seqscan = off")
        assert await rows(app, "SELECT count(md5) FROM table_3 WHERE n BETWEEN 1 AND 3000") == [(3000,)]
        assert await rows(app, "SELECT nextval('tickets')") == [(42,)]
    async with await broker.connect(service) as app:
        assert await rows(app, "SELECT nextval('tickets')") == [(42,)]
        await app.execute("DELETE FROM table_6 WHERE n = 0")
    port = restored.resource["port"]
    after = [
        await asyncio.to_thread(broker.dumped, *each)
        for each in ((service, own.resource["port"]), (f"{service}-2", port))
    ]
    assert after[0] == after[1]
    await broker.check_pages(f"{service}-2", port)
    # It is another server, though its files come from the first one: nothing of that one's copies is kept.
    await broker.stage(f"{service}-2", f"{service}-third")
    await broker.prepare(f"{service}-2", f"{service}-third")
    await broker.copy(
        f"{service}-2", f"{service}-third", repository.open_write(f"{service}-third", parent=f"{service}-second")
    )
    repository.repository.commit(f"{service}-third")
    await broker.discard(f"{service}-third")
    for name in (service, f"{service}-2"):
        await broker.deprovision(name)


@pytest.mark.full
async def test_a_copy_whose_base_is_a_tar_is_restored(dedicated: Dedicated, repository: Site, tmp_path: Path) -> None:
    """As they were written until version 0.2.0."""
    broker, copy, service = dedicated, "copy-tarred", "own-tarred"
    own = await broker.provision_dedicated(service)
    await broker.fill(service)
    environment, bin_dir = broker.environment(service, own.resource["port"]), broker.server.server.bin_dir
    arguments = ("-D", str(tmp_path / "base"), "-Ft", "-X", "none", "-c", "fast", "--no-manifest")
    backup = await asyncio.create_subprocess_exec(bin_dir / "pg_basebackup", *arguments, env=environment)
    assert await backup.wait() == 0
    point, log = f"calque_{'1' * 24}", broker.place(service) / "data" / "pg_wal"
    async with await psycopg.AsyncConnection.connect(
        host="127.0.0.1",
        port=int(own.resource["port"]),
        user="postgres",
        password=environment["PGPASSWORD"],
        dbname=own.resource["database"],
        autocommit=True,
    ) as admin:
        await admin.execute("SELECT pg_create_restore_point(%s), pg_switch_wal()", (point,))
        at = await rows(admin, "SELECT to_regclass('ideas') IS NOT NULL")
    assert at == [(True,)]
    before = await asyncio.to_thread(broker.dumped, service, own.resource["port"])
    part = ClusterPart(major=18, version="18.0", database=database_of(service), point=point, lsn="0/0")
    await repository.write(copy, "cluster", msgspec.json.encode(part))
    await repository.write(copy, "base", await asyncio.to_thread((tmp_path / "base" / "base.tar").read_bytes))
    segments = sorted(path for path in log.iterdir() if SEGMENT.fullmatch(path.name))
    await CopyWriter(repository.open_write(copy)).write_entries("wal", files(segments))
    repository.repository.commit(copy)
    request = msgspec.structs.replace(
        broker.dedicated_request("own-untarred", restore=repository.open_read(copy)), copy_format=TARRED_FORMAT
    )
    restored = await broker.run("provision", request, Provisioned)
    assert await asyncio.to_thread(broker.dumped, "own-untarred", restored.resource["port"]) == before


async def files(paths: list[Path]) -> AsyncIterator[EntrySource]:
    for path in paths:
        content = path.read_bytes()
        yield path.name, {}, len(content), once(content)


async def once(block: bytes) -> AsyncIterator[bytes]:
    yield block


async def nothing() -> AsyncIterator[EntrySource]:
    entries: list[EntrySource] = []
    for entry in entries:
        yield entry
