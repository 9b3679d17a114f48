"""The server fails while the broker works: a clear problem, soon, of the right kind, and it heals."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from bus.connection import Bus
from schemas.brokers import Bind, Bound, DataServiceHealth, DsbInfo, Health, InfoRequest, Provisioned
from schemas.ids import new_id
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import PASSWORD, Postgres, rows
from tests.integration.postgres.test_copies import children, fill
from tests.servers import NatsServer, run_postgres


async def test_the_server_is_killed_in_the_middle_of_a_copy_and_comes_back(
    nats_server: NatsServer, bus: Bus, repository: Site, tmp_path: Path
) -> None:
    async with run_postgres(tmp_path / "server") as server:
        broker = Postgres(server, bus=bus, nats_url=nats_server.url, directory=tmp_path / "broker", name="faults")
        await broker.start()
        try:
            await fill(broker, "faults", count=20_000)
            await broker.prepare("faults", "copy-faults")
            (dump,) = children(broker.pid, "pg_dump")
            os.kill(dump, signal.SIGSTOP)
            request = broker.copy_request("faults", "copy-faults", repository.open_write("copy-faults"))
            assert (await broker.begin("copy", request)).state == "running"
            restarting = asyncio.create_task(server.restart())
            os.kill(dump, signal.SIGCONT)
            outcome = await broker.ended(request.id, seconds=10)
            assert outcome.problem is not None
            assert (outcome.problem.code, outcome.problem.temporary) == ("moment_lost", False)
            assert children(broker.pid, "pg_dump") == []
            await restarting
            async with await broker.connect("faults") as app:
                assert await rows(app, "SELECT count(*) FROM ideas") == [(20_000,)]
            await server.supervisor.stop()
            bind = Bind(id=new_id(), service_id="faults", binding_id="b1", secret=Secret(value=PASSWORD))
            problem = await broker.refuses("bind", bind, Bound)
            assert (problem.code, problem.temporary) == ("unavailable", True)
            provision = broker.provision_request("later")
            assert (await broker.fails("provision", provision)).temporary
            assert not (await broker.ask("health", DataServiceHealth(), Health)).healthy
            assert (await broker.ask("info", InfoRequest(), DsbInfo)).engine == "postgresql"
            await server.supervisor.start()
            await broker.ask("bind", bind, Bound)
            await broker.run("provision", broker.provision_request("later"), Provisioned)
        finally:
            await broker.stop()


async def test_wrong_credentials_are_permanent_and_say_what_to_check(
    nats_server: NatsServer, bus: Bus, broker: Postgres, tmp_path: Path
) -> None:
    wrong = Postgres(broker.server, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="wrong")
    password = tmp_path / "password"
    password.write_text("not-the-password")
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace(str(broker.server.server.password_file), str(password)))
    await wrong.start()
    try:
        problem = await wrong.fails("provision", wrong.provision_request("wrong"))
        assert (problem.code, problem.temporary) == ("unauthorised", False)
        assert "password_file" in problem.sentence()
        assert "not-the-password" not in wrong.log.read_text()
        password.unlink()
        problem = await wrong.fails("provision", wrong.provision_request("wrong"))
        assert (problem.field, problem.temporary) == ("admin.password_file", True)
        assert not (await wrong.ask("health", DataServiceHealth(), Health)).healthy
    finally:
        await wrong.stop()


async def test_sigterm_in_the_middle_of_work_ends_within_five_seconds(own_broker: Postgres, repository: Site) -> None:
    await fill(own_broker, "sigterm", count=20_000)
    await own_broker.prepare("sigterm", "copy-sigterm")
    (dump,) = children(own_broker.pid, "pg_dump")
    os.kill(dump, signal.SIGSTOP)
    request = own_broker.copy_request("sigterm", "copy-sigterm", repository.open_write("copy-sigterm"))
    await own_broker.begin("copy", request)
    async with asyncio.timeout(60):
        assert await own_broker.stop() == 0
    assert not Path(f"/proc/{dump}").exists()
    text = own_broker.log.read_text()
    assert "Traceback" not in text
    assert all(json.loads(line)["message"] for line in text.splitlines())


async def test_broken_settings_are_one_line_and_exit_two(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        '{"bus": {"servers": []}, "site": "hub", "kind": "dsb", "name": "X", "state_dir": "s", "typo": 1}'
    )

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "brokers.postgres"),
        env={**os.environ, "CALQUE_CONFIG": str(config)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    (line,) = said.decode().splitlines()
    for expected in ("bus.servers", "site", "name", "admin", "typo", str(config)):
        assert expected in line
