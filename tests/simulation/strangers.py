"""What others do to the repositories: they put images there that nobody saved here, and take copies away."""

from __future__ import annotations

import asyncio
from random import Random

from schemas import brokers as wire
from schemas.values import (
    CopyPart,
    ImageContent,
    ImageInstance,
    ImagePart,
    InstanceConfiguration,
)
from tests.simulation.data_broker import FORMAT
from tests.simulation.repository import STRANGE_KEY, signing_key, summary_of
from tests.simulation.workload import TEMPLATES
from tests.simulation.world import CHAOS_SECONDS, DATABASES, REPOSITORIES, SITES, World

BLOG = TEMPLATES[1]


class Strangers:
    """``left`` are the images that they put somewhere, with the keys that signed them."""

    def __init__(self, world: World, seed: int) -> None:
        self.left: dict[str, str] = {}
        self._world = world
        self._chance = Random(f"{seed}-strangers")

    async def play(self) -> None:
        """Now and then something, in some runs."""
        chance = self._chance
        if chance.random() < 0.5:
            return
        for _ in range(chance.randrange(1, 5)):
            await asyncio.sleep(chance.uniform(1.0, CHAOS_SECONDS / 3))
            if self._world.fate.healed:
                return
            if chance.random() < 0.6:
                self.leave(chance.choice(SITES), chance.choice(REPOSITORIES), trusted=chance.random() < 0.7)
            else:
                self.take(chance.choice(SITES), chance.choice(REPOSITORIES))

    def leave(self, site: str, repository: str, *, trusted: bool = True) -> str:
        """An image of an app that ran somewhere else, signed by another site's repository or by nobody's."""
        image = f"f{len(self.left) + 1}"
        peer = next(each for each in SITES if each != site)
        disk = self._world.disks[site].repositories[repository]
        part = CopyPart(name="data", media_type="x", size=10, digest=f"{image}-data")
        copied = wire.Copied(copy_format=FORMAT, parts=(part,))
        summary = summary_of(f"{image}-copy", copied)
        disk.committed[summary.copy] = (summary, copied)
        disk.images[image] = _content(image, summary.copy, root=summary.merkle_root)
        disk.signers[image] = self.left[image] = signing_key(peer, REPOSITORIES[0]) if trusted else STRANGE_KEY
        self._world.trace.note(
            "stranger", "leaves", image, site, repository, "" if trusted else "signed by nobody's key"
        )
        return image

    def take(self, site: str, repository: str) -> None:
        """A copy that nothing works on now: a disk loses what lies there, not what is on its way."""
        disk = self._world.disks[site].repositories[repository]
        journal = self._world.agents[site].journal
        if journal is None:
            return
        recorded = [copy for copy in sorted(disk.committed) if journal.site.holds(copy, repository)]
        if not recorded:
            return
        copy = self._chance.choice(recorded)
        del disk.committed[copy]
        disk.taken.add(copy)
        self._world.trace.note("stranger", "takes", copy, site, repository)


def _content(image: str, copy: str, *, root: str) -> ImageContent:
    part = ImagePart(
        data_service="db",
        type="database",
        broker=DATABASES,
        plan="small",
        copy=copy,
        copy_format=FORMAT,
        level="application",
        merkle_root=root,
        size=20,
        stored=10,
    )
    instance = ImageInstance(
        instance=f"elsewhere-{image}",
        instance_name="blog",
        configuration=InstanceConfiguration(template=BLOG),
        parts=(part,),
    )
    return ImageContent(
        image=image, site="elsewhere", level="application", instances=(instance,), saved_at="2026-01-01T00:00:00Z"
    )
