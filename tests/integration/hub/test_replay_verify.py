"""A replay beside the hub, compared with what it knows."""

from __future__ import annotations

from bus.connection import Bus
from bus.snapshots import Snapshots
from hub.process import Hub
from schemas.ids import new_id
from schemas.subjects import HUB, ROOT, act
from schemas.upkeep import VerificationView, VerifyReplay
from tests.integration.hub.conftest import Client
from tests.integration.hub.fakes import FakeSite


async def verified(bus: Bus) -> VerificationView:
    subject = act(principal="alice", what="verify")
    question = VerifyReplay(id=new_id())
    return await bus.ask(subject, question, VerificationView, source="alice", timeout_seconds=60)


async def test_what_the_hub_knows_is_what_a_replay_makes_until_it_is_not(
    running_hub: Hub, bus: Bus, sites: dict[str, FakeSite], client: Client
) -> None:
    await client.apply()
    instance = await client.deploy()
    await client.save(instance)
    heard: list[str] = []

    async def hear(message: object) -> None:
        heard.append("progress")

    await bus.subscribe(f"{ROOT}.progress.{HUB}.*", hear)
    found = await verified(bus)
    assert (found.same, found.differences) == (True, ())
    assert found.sha256 == found.replayed_sha256
    assert found.events == running_hub.context.state.events > 10
    assert heard
    running_hub.context.state.apps.rows["north", instance].message = "nobody told this"
    found = await verified(bus)
    assert not found.same
    (row,) = found.differences
    assert (row.table, row.key) == ("apps", f"north/{instance}")
    assert "nobody told this" in (row.live or "")
    assert "nobody told this" not in (row.replayed or "")
    # nobody shall start from what was wrong
    assert await Snapshots(bus).all() == []
    assert running_hub.snapshotter.failures == {"different": 1}
