"""An outbox that is nearly full: nothing new begins, what runs goes on, and a refusal says what is full."""

from __future__ import annotations

import pytest

from schemas import commands as cmd
from schemas import events as ev
from schemas.problems import CalqueError
from schemas.room import Fill
from site_agent.domain.site import Draft
from tests.unit.site_agent.test_journal import DEPLOY, Parts, degraded
from tests.unit.site_agent.world import BY

LIMIT = 80 << 20
HEADROOM = 10 << 20


def room(free: int) -> Fill:
    return Fill("north", "EVT_north", LIMIT - free, LIMIT)


def test_an_eighth_is_kept_and_16_mib_at_most() -> None:
    assert (room(HEADROOM).low, room(HEADROOM - 1).low) == (False, True)
    assert (room(HEADROOM // 4).last, room(HEADROOM // 4 - 1).last) == (False, True)
    large = Fill("north", "EVT_north", 0, 1 << 40)
    assert large.headroom == 16 << 20
    assert not Fill("north", "EVT_north", 1 << 50).low


async def test_nothing_new_begins_when_only_the_headroom_is_left() -> None:
    parts = await Parts().begin()
    parts.journal.room = room(HEADROOM - 1)
    answer = await parts.send(DEPLOY, "i1", id="c1")
    assert answer.state == "rejected"
    assert answer.problem is not None
    assert answer.problem.code == "stream_full"
    assert "EVT_north at north is full" in answer.problem.message
    assert "max_bytes of EVT_north" in (answer.problem.remedy or "")
    parts.journal.room = room(HEADROOM)
    again = await parts.send(DEPLOY, "i1", id="c1")
    assert again == answer, "the same command, the same answer"
    assert (await parts.send(DEPLOY, "i1", id="c2")).state == "accepted"


async def test_what_runs_goes_on_and_can_be_cancelled() -> None:
    parts = await Parts().begin()
    assert (await parts.send(DEPLOY, "i1", id="c1")).state == "accepted"
    parts.journal.room = room(0)
    await parts.journal.record(degraded)
    assert (await parts.send(cmd.SiteCancelOperation(by=BY), "c1", id="c2")).state == "accepted"


async def test_what_can_wait_takes_nothing_of_the_headroom() -> None:
    parts = await Parts().begin()
    parts.journal.room = room(HEADROOM - 1)
    with pytest.raises(CalqueError) as caught:
        await parts.journal.record(lambda _: [Draft("instance", "i1", ev.InstanceDegraded(message="m"))], need="spare")
    assert caught.value.problem.code == "stream_full"


async def test_at_the_very_end_a_command_waits_instead_of_being_refused() -> None:
    parts = await Parts().begin()
    parts.journal.room = room(HEADROOM // 4 - 1)
    with pytest.raises(CalqueError) as caught:
        await parts.send(DEPLOY, "i1", id="c1")
    assert caught.value.problem.temporary
    parts.journal.room = room(HEADROOM)
    assert (await parts.send(DEPLOY, "i1", id="c1")).state == "accepted"
