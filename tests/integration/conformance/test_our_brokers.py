"""All brokers of ours keep the contract, a kill in the middle included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from brokers.testkit.bench import Options
from brokers.testkit.report import Report, as_table
from brokers.testkit.run import conform
from bus.connection import Bus
from tests.integration.broker_process import BrokerProcess
from tests.integration.conformance.conftest import conforms
from tests.integration.kubernetes.services import SPEC, Kubernetes, give_app
from tests.integration.kubernetes.simulated.api import SimulatedCluster
from tests.integration.postgres.services import Postgres
from tests.integration.postgres.test_physical import dedicated_broker
from tests.integration.repository_brokers.brokers import Surroundings
from tests.integration.s3.services import S3
from tests.servers import NatsServer, RunningApps, RunningPostgres, RunningS3


def skipped(report: Report) -> list[str]:
    return [finding.id for finding in report.findings if finding.verdict == "skipped"]


@pytest.mark.full
async def test_the_postgres_broker_conforms(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    broker = Postgres(postgres_server, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="conform-pg")
    await broker.start()
    try:
        assert skipped(await conforms(broker, bus)) == []
    finally:
        await broker.stop()


@pytest.mark.full
async def test_the_s3_broker_conforms(s3_server: RunningS3, nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    broker = S3(s3_server, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="conform-s3")
    await broker.start()
    try:
        assert skipped(await conforms(broker, bus)) == []
    finally:
        await broker.stop()


@pytest.mark.full
async def test_the_process_broker_conforms(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    broker = BrokerProcess(
        "brokers.process",
        bus=bus,
        nats_url=nats_server.url,
        kind="psb",
        name="conform-process",
        directory=tmp_path,
        stop_seconds=1.0,
    )
    await broker.start()
    try:
        assert skipped(await conforms(broker, bus)) == []
    finally:
        await broker.stop()


@pytest.mark.full
async def test_the_kubernetes_broker_conforms(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    cluster = SimulatedCluster()
    give_app(cluster, tmp_path)
    await cluster.start()
    broker = Kubernetes(cluster, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="conform-kube")
    await broker.start()
    try:
        assert skipped(await conforms(broker, bus, options=Options(spec=SPEC))) == []
        assert [cluster.store.all(kind) for kind in ("pods", "services", "secrets", "jobs")] == [[], [], [], []]
    finally:
        await broker.stop()
        await cluster.stop()


@pytest.mark.full
async def test_the_filesystem_broker_conforms(
    nats_server: NatsServer, bus: Bus, tmp_path: Path, crb_settings: Callable[[str], dict[str, object]]
) -> None:
    made = [
        BrokerProcess(
            "brokers.filesystem",
            bus=bus,
            nats_url=nats_server.url,
            kind="crb",
            name=name,
            directory=tmp_path / name,
            **crb_settings(name),
        )
        for name in ("conform-files", "conform-peer")
    ]
    for broker in made:
        await broker.start()
    try:
        assert skipped(await conforms(made[0], bus, options=Options(peer="conform-peer"))) == []
    finally:
        for broker in made:
            await broker.stop()


@pytest.mark.full
@pytest.mark.parametrize("kind", ["s3", "postgres"])
async def test_the_other_repositories_conform(
    s3_server: RunningS3,
    postgres_server: RunningPostgres,
    nats_server: NatsServer,
    bus: Bus,
    tmp_path: Path,
    kind: str,
) -> None:
    surroundings = Surroundings(directory=tmp_path, nats=nats_server, bus=bus, s3=s3_server, postgres=postgres_server)
    made = [surroundings.broker(kind, f"conform-{kind}"), surroundings.broker("filesystem", f"peer-of-{kind}")]
    for broker in made:
        await broker.start()
    try:
        assert skipped(await conforms(made[0], bus, options=Options(peer=f"peer-of-{kind}"))) == []
    finally:
        for broker in made:
            await broker.stop()


@pytest.mark.full
async def test_a_copy_that_was_read_whole_before_its_discard_is_no_temporary_problem(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    """The PostgreSQL broker asked the closed session for the server's version, and told the agent to try again."""
    broker = Postgres(postgres_server, bus=bus, nats_url=nats_server.url, directory=tmp_path, name="conform-discard")
    await broker.start()
    try:
        report = await conform(bus, site="north", kind="dsb", broker=broker.name, only=["dsb.discard.running"])
        assert report.conforms, as_table(report)
    finally:
        await broker.stop()


@pytest.mark.full
async def test_the_volume_broker_conforms(nats_server: NatsServer, bus: Bus, tmp_path: Path) -> None:
    broker = BrokerProcess(
        "brokers.volume",
        bus=bus,
        nats_url=nats_server.url,
        kind="dsb",
        name="conform-volume",
        directory=tmp_path,
        volumes_dir=str(tmp_path / "volumes"),
    )
    await broker.start()
    try:
        assert skipped(await conforms(broker, bus)) == ["dsb.bind.secret", "dsb.unbind.works"]
    finally:
        await broker.stop()


@pytest.mark.full
async def test_the_messaging_broker_conforms(
    apps_server: RunningApps, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    broker = BrokerProcess(
        "brokers.messaging",
        bus=bus,
        nats_url=nats_server.url,
        kind="dsb",
        name="conform-nats",
        directory=tmp_path,
        **apps_server.settings,
    )
    await broker.start()
    try:
        found = skipped(await conforms(broker, bus))
        # nothing that was there before is attached
        assert [each for each in found if not each.startswith("dsb.attach.")] == [
            "dsb.prepare.repeated",
            "dsb.copy.moment",
            "dsb.restore.independent",
            "dsb.restart.moment",
        ]
    finally:
        await broker.stop()


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_servers_of_their_own_conform(
    postgres_server: RunningPostgres, nats_server: NatsServer, bus: Bus, tmp_path: Path
) -> None:
    broker = dedicated_broker(postgres_server, bus, nats_server, tmp_path, "conform-own")
    await broker.start()
    try:
        assert skipped(await conforms(broker, bus, options=Options(plan="dedicated"), patience_seconds=90.0)) == []
        assert list((tmp_path / "servers").glob("calque_*")) == []
    finally:
        await broker.end()
