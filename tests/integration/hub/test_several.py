"""Two hubs on one server: what the one that is killed had in its hands, the other carries on within seconds."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from bus.connection import Bus
from schemas import events as ev
from schemas.commands import Answer, ApplyTemplate, DeleteImage, RunImage
from schemas.ids import new_id
from schemas.names import template_token
from tests.integration.hub.conftest import SHOP, Client, HubProcess, Server, until
from tests.integration.hub.fakes import FakeSite, Handled
from tests.integration.hub.following import following
from tests.integration.hub.test_operations import hubs, online, prepared, start_hub, transfers_done

__all__ = ["hubs"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

TAKEOVER_SECONDS = 60.0
"""Alone on a machine it takes 3 to 4 s (``tests/faults/test_hubs.py`` holds it to 5); this one runs beside others."""
COMMANDS = 24
ENDS = ev.OperationSucceeded | ev.OperationFailed | ev.OperationCancelled


async def test_what_a_killed_hub_had_in_its_hands_is_carried_on_by_the_other(
    client: Client, sites: dict[str, FakeSite], hubs: list[HubProcess], nats: Server, tmp_path: Path, bus: Bus
) -> None:
    first, _ = await asyncio.gather(*(start_hub(hubs, nats, tmp_path) for _ in range(2)))
    _, image = await prepared(client)
    await online(client)
    held: list[Handled] = []

    async def hold(handled: Handled) -> None:
        await handled.accept()
        held.append(handled)

    sites["south"].scripts["transfer"] = hold
    async with following(bus) as record:
        run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
        await until(lambda: bool(held), what="the transfer has begun")
        # Standing still, it keeps what it is handed now, as one that is killed in the middle of its work does.
        first.process.send_signal(signal.SIGSTOP)
        waiting = await asyncio.gather(*(templates(client, number) for number in range(COMMANDS)))
        await transfers_done(sites["south"], held[0])
        await held[0].succeed()
        await until(lambda: record.done(f"{run.command}/transfer-south/1"), what="the end of the transfer is known")
        first.kill()
        await record.wait(
            lambda each: (
                each.id == run.command and isinstance(each.event, ev.StepStarted) and each.event.step == "run-south"
            )
        )
        answers = await asyncio.gather(*(within(answer, TAKEOVER_SECONDS) for _, answer in waiting))
        assert {answer.state for answer in answers} == {"accepted"}
        assert (await client.ended(run.command)).state == "succeeded"
        assert sites["south"].verbs() == ["transfer", "run"]
        applied = [each.id for each in record.events if isinstance(each.event, ev.TemplateApplied)]
        assert len(applied) == len(set(applied)) == COMMANDS + 1


@pytest.mark.full
async def test_a_deletion_goes_on_without_the_hub_that_began_it(
    client: Client, sites: dict[str, FakeSite], hubs: list[HubProcess], nats: Server, tmp_path: Path, bus: Bus
) -> None:
    first, second = await asyncio.gather(*(start_hub(hubs, nats, tmp_path) for _ in range(2)))
    _, image = await prepared(client)
    await online(client)
    async with following(bus) as record:
        second.process.send_signal(signal.SIGSTOP)
        deletion = await client.ask(DeleteImage(), image)
        second.process.send_signal(signal.SIGCONT)
        first.kill()
        await record.wait(lambda each: each.id == deletion.command and isinstance(each.event, ev.OperationSucceeded))
        ends = [each for each in record.events if each.id == deletion.command and isinstance(each.event, ENDS)]
        assert len(ends) == 1
    assert sites["north"].verbs().count("forget") == 1


async def templates(client: Client, number: int) -> tuple[str, asyncio.Future[Answer]]:
    """A command that takes effect at the hub alone."""
    template = replace(SHOP, version=f"2.{number}")
    return await client.send(ApplyTemplate(template=template), template_token(template.name, template.version))


async def within(answer: asyncio.Future[Answer], seconds: float) -> Answer:
    async with asyncio.timeout(seconds):
        return await answer
