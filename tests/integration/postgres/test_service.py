"""What every broker built on the SDK is on the bus: found, watched, and clear about what it doesn't offer."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from brokers.sdk.service import Broker, BrokerService
from brokers.sdk.settings import BrokerSettings, BusSection
from bus.connection import Bus, Message
from bus.service import discover
from schemas.brokers import CopyList, ListCopies, Outcome, VerifyCopy
from schemas.envelope import decode, unwrap
from schemas.ids import new_id
from schemas.problems import Actor, CalqueError
from schemas.signals import Progress
from schemas.subjects import broker_request, progress
from tests.integration.filesystem.site import Site
from tests.integration.postgres.services import Postgres
from tests.integration.postgres.test_copies import fill


async def test_a_broker_is_found_with_its_kind_name_and_site(broker: Postgres, bus: Bus) -> None:
    info = None
    while info is None:  # one that is slow to answer is not found
        info = next((each for each in await discover(bus) if each.name == "calque-dsb-postgres"), None)
    assert info.metadata == {"calque.kind": "dsb", "calque.name": "postgres", "calque.site": "north"}
    subjects = {endpoint.name: endpoint.subject for endpoint in info.endpoints}
    assert subjects["prepare_copy"] == "calque.req.north.dsb.postgres.prepare_copy"
    assert {"status", "cancel", "health"} <= subjects.keys()


async def test_progress_is_published_while_a_copy_streams(broker: Postgres, bus: Bus, repository: Site) -> None:
    operation = new_id()
    heard: list[Progress] = []
    last = asyncio.Event()

    async def hear(message: Message) -> None:
        heard.append(unwrap(decode(message.payload), Progress))
        last.set()

    subscription = await bus.subscribe(progress(site="north", operation=operation), hear)
    await fill(broker, "told", count=2000)
    await broker.prepare("told", "copy-told")
    request = msgspec.structs.replace(
        broker.copy_request("told", "copy-told", repository.open_write("copy-told")),
        id=f"{operation}/copy-told/1",
        operation=operation,
    )
    await broker.begin("copy", request)
    outcome = await broker.ended(request.id)
    assert outcome.progress is not None
    async with asyncio.timeout(60):
        while not heard or heard[-1].done != outcome.progress.done:
            last.clear()
            await last.wait()
    assert {(one.operation, one.step) for one in heard} == {(operation, "copy-told")}
    assert outcome.progress.done == outcome.progress.total
    await subscription.stop()
    await broker.discard("copy-told")


async def test_what_a_broker_does_not_offer_is_a_permanent_problem(bus: Bus, tmp_path: Path) -> None:
    settings = BrokerSettings(
        bus=BusSection(servers=["-"]), site="north", kind="crb", name="nothing", state_dir=tmp_path
    )
    service = BrokerService(Broker(settings), bus)
    await service.start()
    try:
        for operation, request, reply in (
            ("verify", VerifyCopy(id="1", copy="c"), Outcome),
            ("list", ListCopies(), CopyList),
        ):
            subject = broker_request(site="north", kind="crb", broker="nothing", operation=operation)
            with pytest.raises(CalqueError) as refused:
                await bus.ask(subject, request, reply, source="test", timeout_seconds=60)
            problem = refused.value.problem
            assert (problem.code, problem.actor) == ("unsupported", Actor.BROKER)
    finally:
        await service.stop()
