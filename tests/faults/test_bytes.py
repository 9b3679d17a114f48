"""No bulk byte crosses NATS: what the servers counted during a save and a run of 64 MiB, and what they stored.

The test waits by the record of events it follows anyway: asking for the state again and again would be counted too,
and the more of it the slower the machine is.
"""

from __future__ import annotations

import base64
import time

import pytest

from hub.stack.layout import HomeLayout
from tests.faults.reality import Ports
from tests.faults.world import OBJECT_BYTES, World

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("faults")]

MIB = 1 << 20
SERVERS = ("hub", "north", "south")
MARKER = b"<<calque-ballast-e1b7>>"
IDLE_SECONDS = 3.0


async def counted(world: World) -> dict[str, int]:
    """Bytes in and out of each NATS server, since its start."""
    ports = Ports(world.stack.home)
    found = {}
    for server in SERVERS:
        async with world.http.get(f"http://127.0.0.1:{ports[f'{server}-nats-monitor']}/varz") as answer:
            told = await answer.json()
            found[server] = int(told["in_bytes"]) + int(told["out_bytes"])
    return found


def beyond(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {server: after[server] - before[server] for server in SERVERS}


@pytest.mark.full
async def test_no_bulk_byte_crosses_nats(world: World) -> None:
    await world.fill_objects(prefix="bulk/", count=64 * MIB // OBJECT_BYTES, marker=MARKER)
    waited, before = time.monotonic(), await counted(world)
    await world.idle(IDLE_SECONDS)
    idle = beyond(before, await counted(world))
    idle_seconds = time.monotonic() - waited

    began, before = time.monotonic(), await counted(world)
    image, started = await world.save()
    await world.record.success(started.command)
    _, started = await world.run(image)
    await world.record.success(started.command)
    took, crossed = time.monotonic() - began, beyond(before, await counted(world))

    (view,) = await world.client.images(name=image)
    assert view.stored >= 64 * MIB, "the data is not incompressible"
    for server in SERVERS:
        baseline = idle[server] * took / idle_seconds
        print(f"{server}: {crossed[server]} bytes in {took:.1f} s, {baseline:.0f} of them idle")
        assert crossed[server] - baseline < MIB, f"{server}: {crossed[server]} bytes, {baseline:.0f} when idle"

    forms = (MARKER, MARKER.hex().encode(), base64.b64encode(MARKER)[:24])
    home = HomeLayout(world.stack.home)
    for store in (home.hub / "nats", home.site("north") / "nats", home.site("south") / "nats"):
        for file in store.rglob("*"):
            if file.is_file():
                text = file.read_bytes()
                assert not any(form in text for form in forms), f"{file} holds data of the application"
    await world.remove_objects("bulk/")
    await world.judge()
