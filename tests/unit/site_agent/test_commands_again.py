"""The same command at a site: at once, later, after a restart, and when it is not remembered any more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import cast

import pytest

from bus.connection import Bus
from bus.work import Delivery
from schemas import commands as cmd
from schemas import events as ev
from schemas.envelope import encode, timestamp, wrap
from schemas.expiry import REMEMBERED
from schemas.problems import CalqueError
from schemas.subjects import site_command
from tests.unit.site_agent.memory_store import START
from tests.unit.site_agent.test_journal import DEPLOY, Parts
from tests.unit.site_agent.world import BY, TEMPLATE

STOP = cmd.SiteStopInstance(by=BY)


async def outcomes(parts: Parts, id: str) -> list[str]:
    return [one.event.EVENT for one in await parts.store.load("command", id) if isinstance(one.event, ev.Event)]


async def test_sent_by_many_at_once_it_has_one_effect_and_one_answer() -> None:
    parts = await Parts().begin()
    answers = await asyncio.gather(*(parts.send(DEPLOY, "i1", id="c1") for _ in range(20)))
    assert {(one.state, one.operation) for one in answers} == {("accepted", "c1")}
    assert await outcomes(parts, "c1") == ["accepted"]
    assert len(parts.journal.site.operations) == 1


async def test_two_agents_at_once_by_mistake_make_one_effect() -> None:
    parts, other = await Parts().begin(), Parts()
    other.store = parts.store
    other.restart()
    await other.journal.load()
    first, second = await asyncio.gather(parts.send(DEPLOY, "i1", id="c1"), other.send(DEPLOY, "i1", id="c1"))
    assert first == second
    assert await outcomes(parts, "c1") == ["accepted"]


async def test_a_restart_and_any_number_of_days_change_neither_effect_nor_answer() -> None:
    parts = await Parts().begin()
    accepted = await parts.send(DEPLOY, "i1", id="c1")
    rejected = await parts.send(STOP, "nothing", id="c2")
    assert (accepted.state, rejected.state) == ("accepted", "rejected")
    time = timestamp(START)
    for days in (1, 6, 9, 400):
        parts.store.now = START + timedelta(days=days)
        await parts.send(STOP, "nothing", id=f"later-{days}")  # time passes at the site, so that it forgets
        parts.restart()
        await parts.journal.load()
        before = len(parts.store.stored)
        assert await parts.send(DEPLOY, "i1", id="c1", time=time) == accepted
        assert await parts.send(STOP, "nothing", id="c2", time=time) == rejected
        assert len(parts.store.stored) == before


async def test_what_is_remembered_is_bounded_by_days_not_by_the_life_of_the_site() -> None:
    parts = await Parts().begin()
    for day in range(40):
        parts.store.now = START + timedelta(days=day)
        for number in range(5):
            await parts.send(STOP, "nothing", id=f"c{day}-{number}")
    site = parts.journal.site
    days = REMEMBERED.days + 1
    assert len(site.handled) == len(site.rejected) == 5 * days
    assert sum(1 for aggregate, _ in site.sequences if aggregate == "command") == 5 * days
    parts.restart()
    await parts.journal.load()
    assert vars(parts.journal.site) == vars(site)  # by the times of events alone: every fold forgets the same


async def test_an_expired_command_is_rejected_with_the_reason_and_that_is_its_answer() -> None:
    parts = await Parts().begin()
    ends = timestamp(START + timedelta(hours=1))
    parts.store.now = START + timedelta(hours=2)
    first = await parts.send(DEPLOY, "i1", id="c1", time=timestamp(START), expirytime=ends)
    assert first.problem is not None
    assert (first.state, first.problem.code) == ("rejected", "expired")
    parts.store.now = START  # whatever the clock says later
    assert await parts.send(DEPLOY, "i1", id="c1") == first
    assert await outcomes(parts, "c1") == ["rejected"]


async def test_one_that_was_accepted_in_time_is_not_expired_afterwards() -> None:
    parts = await Parts().begin()
    ends = timestamp(START + timedelta(hours=1))
    first = await parts.send(DEPLOY, "i1", id="c1", expirytime=ends)
    parts.store.now = START + timedelta(days=3)
    assert await parts.send(DEPLOY, "i1", id="c1", time=timestamp(START), expirytime=ends) == first


async def test_the_effect_of_an_operation_of_the_hub_waits_for_a_site_that_was_away() -> None:
    parts = await Parts().begin()
    parts.store.now = START + timedelta(days=20)
    command = cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE, parent="o1")
    answer = await parts.send(command, "i1", id="o1/run-north/1", time=timestamp(START))
    assert answer.state == "accepted"


@pytest.mark.parametrize("replyto", ["", "$JS.API.STREAM.DELETE.EVT_north", "_INBOX.*", "_INBOX..x"])
async def test_who_wants_the_answer_elsewhere_than_in_an_inbox_gets_none(replyto: str) -> None:
    parts = await Parts().begin()
    subject = site_command(site="north", principal="admin", aggregate="instance", id="i1", verb=DEPLOY.VERB)
    envelope = wrap(DEPLOY, id="c1", source="hub", time=timestamp(parts.store.now), replyto=replyto)
    at = parts.store.now.timestamp()
    await parts.handler.handle(Delivery(subject, encode(envelope), 1, 1, at, cast(Bus, parts.bus), "ack"))
    assert await outcomes(parts, "c1") == ["accepted"]
    assert parts.bus.said == []


@pytest.mark.parametrize("id", ["a b", "x" * 5000])
async def test_a_command_under_an_id_that_nothing_can_have_is_put_aside(id: str) -> None:
    parts = await Parts().begin()
    with pytest.raises(CalqueError, match="id") as refused:
        await parts.send(DEPLOY, "i1", id=id)
    assert not refused.value.problem.temporary
