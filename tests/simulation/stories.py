"""Stories for breaks that chance meets too seldom: what a story makes go wrong, and nothing else."""

from __future__ import annotations

import asyncio

from schemas import commands as cmd
from schemas.names import template_token
from schemas.values import TemplateRef
from tests.simulation.workload import TEMPLATES, Client
from tests.simulation.world import SITES, World, until

PAGE = TEMPLATES[2]


async def two_saves_of_one_name(world: World, client: Client) -> None:
    """Apps at both sites are saved under one name, while what the hub writes reaches its own projections late."""
    await client.send(template_token(PAGE.name, PAGE.version), cmd.ApplyTemplate(template=PAGE))
    await asyncio.sleep(1.0)
    for number, site in enumerate(SITES, start=1):
        command = cmd.DeployInstance(name=f"app-{number}", site=site, template=TemplateRef(name=PAGE.name))
        await client.send(f"i{number}", command)
    await until(lambda: all(_runs(world, site) for site in SITES))
    await asyncio.sleep(3.0)
    world.sources["hub"].cut = True
    await client.send("i1", cmd.SaveInstance(image="m1", name="image-1"))
    await asyncio.sleep(1.0)
    await client.send("i2", cmd.SaveInstance(image="m2", name="image-1"))
    await asyncio.sleep(5.0)
    world.sources["hub"].cut = False
    world.sources["hub"].move()


def _runs(world: World, site: str) -> bool:
    journal = world.agents[site].journal
    return journal is not None and any(one.state == "running" for one in journal.site.instances.values())
