"""A broker that does not answer: when it is lost, and what is said to whoever needs it meanwhile."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from bus.connection import Bus
from bus.discovery import ServiceInfo
from schemas import brokers as wire
from schemas import commands as cmd
from schemas import events as ev
from schemas.ids import new_id
from schemas.problems import CalqueError, Problem, temporary
from site_agent.adapters.brokers import Brokers
from site_agent.application import surroundings
from site_agent.application.surroundings import BrokerWatch
from site_agent.domain.site import Draft
from tests.unit.site_agent.test_journal import DEPLOY, Parts
from tests.unit.site_agent.world import BROKERS, TEMPLATE, World, deployed

ROUNDS = surroundings.MISSES_UNTIL_LOST + 1


@pytest.mark.parametrize("kind", ["dsb", "psb"])
def test_what_needs_a_broker_that_was_there_is_to_be_sent_again(kind: str) -> None:
    world = World()
    for id, known in list(world.site.brokers.items()):
        if known.kind == kind:
            world.tell(Draft("broker", id, ev.BrokerLost(kind=known.kind, name=known.name)))
    problem = world.send(DEPLOY, new_id())
    assert isinstance(problem, Problem)
    assert (problem.code, problem.temporary, problem.field) == ("broker_away", True, "site")
    assert f"{kind}-" in problem.message
    world.tell(*BROKERS)
    assert isinstance(world.send(DEPLOY, new_id()), str)


def test_what_the_site_never_had_is_a_conflict_though_a_broker_is_away() -> None:
    world = World()
    [s3] = [known for known in world.site.brokers.values() if known.name == "s3"]
    world.tell(Draft("broker", "dsb-s3", ev.BrokerLost(kind=s3.kind, name=s3.name)))
    spec = msgspec.structs.replace(TEMPLATE.data_services["db"], broker="mysql")
    template = msgspec.structs.replace(TEMPLATE, data_services={**TEMPLATE.data_services, "db": spec})
    problem = world.send(msgspec.structs.replace(DEPLOY, template=template), new_id())
    assert isinstance(problem, Problem)
    assert not problem.temporary


def test_a_save_without_a_repository_that_was_there_is_to_be_sent_again() -> None:
    world = World()
    instance = deployed(world)
    world.tell(Draft("broker", "crb-filesystem", ev.BrokerLost(kind="crb", name="filesystem")))
    problem = world.send(
        cmd.SiteSaveInstance(by=DEPLOY.by, image=new_id(), copies={"db": new_id(), "files": new_id()}), instance
    )
    assert isinstance(problem, Problem)
    assert (problem.code, problem.temporary) == ("broker_away", True)


class Questions:
    """Brokers of which each answers, is slow, or is away."""

    def __init__(self, *, slow: str, away: str) -> None:
        self.problems = {slow: "timeout", away: "unavailable"}

    async def once(self, kind: str, name: str, *_: Any, **__: Any) -> wire.PsbInfo:
        """Of this one."""
        if code := self.problems.get(name):
            raise CalqueError(temporary(code, "it does not answer"))
        return wire.PsbInfo(name=name, version="1", artifacts=())


async def test_a_broker_is_lost_when_nobody_takes_its_requests_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(_: Bus, *, wait_seconds: float) -> list[ServiceInfo]:
        return []

    monkeypatch.setattr(surroundings, "discover", nobody)
    parts = await Parts().begin()
    watch = BrokerWatch(parts.journal, cast(Bus, parts.bus), cast(Brokers, Questions(slow="postgres", away="s3")))
    for _ in range(ROUNDS):
        await watch.look()
    assert "dsb-s3" in parts.journal.site.brokers, "one that is started again is not lost"
    monkeypatch.setattr(surroundings, "AWAY_UNTIL_LOST_SECONDS", 0.0)
    await watch.look()
    assert "dsb-s3" not in parts.journal.site.brokers
    assert "dsb-postgres" in parts.journal.site.brokers, "one that is busy is not lost"
    monkeypatch.setattr(surroundings, "SILENT_UNTIL_LOST_SECONDS", 0.0)
    await watch.look()
    assert "dsb-postgres" not in parts.journal.site.brokers
