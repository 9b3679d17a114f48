"""What others do to the repositories: they put images there that nobody saved here, and take copies away."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec

from schemas import brokers as wire
from schemas import events as ev
from schemas.subjects import HUB, hub_command, site_command
from schemas.subjects import event as event_subject
from schemas.values import (
    CopyPart,
    ImageContent,
    ImageInstance,
    ImagePart,
    InstanceConfiguration,
    Requester,
)
from tests.simulation.data_broker import FORMAT
from tests.simulation.repository import STRANGE_KEY, signing_key, summary_of
from tests.simulation.workload import TEMPLATES
from tests.simulation.world import BABBLE, CHAOS_SECONDS, DATABASES, FORGED, REPOSITORIES, SITES, World

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
        if chance.random() < 0.3:
            return
        for _ in range(chance.randrange(1, 6)):
            await asyncio.sleep(chance.uniform(1.0, CHAOS_SECONDS / 3))
            if self._world.fate.healed:
                return
            roll = chance.random()
            if roll < 0.35:
                self.leave(chance.choice(SITES), chance.choice(REPOSITORIES), trusted=chance.random() < 0.7)
            elif roll < 0.7:
                self.take(chance.choice(SITES), chance.choice(REPOSITORIES))
            elif roll < 0.9:
                self.forge(chance.choice(SITES))
            else:
                self.babble(chance.choice(SITES))

    def forge(self, site: str) -> None:
        """Events in the stream of all that ``site`` may not write, and such that nobody knows yet."""
        chance = self._chance
        peer = next(each for each in SITES if each != site)
        journal = self._world.agents[peer].journal
        instance = chance.choice(sorted(journal.site.instances) if journal and journal.site.instances else ["i1"])
        image = chance.choice(sorted(journal.site.images) if journal and journal.site.images else ["m1"])
        by = Requester(principal=site, team="default")
        gone = (peer, ev.InstanceDeleted(), instance, site)
        deleted = (site, ev.CatalogDeleted(by=by), image, site)
        of_hub = (HUB, ev.CatalogDeleted(by=by), image, site)
        newer = (site, None, f"n{len(self._world.events.messages)}", site)
        writer, event, id, source = chance.choice((gone, deleted, of_hub, newer))
        if event is None:
            subject = event_subject(writer=writer, aggregate="instance", id=id, event="teleported")
            fields = {"type": "calque.event.instance.teleported.v9", "data": {"to": "the moon"}}
            self._world.trace.hit("unknown event", "its own stream", who=f"stranger {site}")
        else:
            subject = event_subject(writer=writer, aggregate=event.AGGREGATE, id=id, event=event.EVENT)
            fields = {"type": event.TYPE, "data": msgspec.to_builtins(event)}
            self._world.trace.hit("forged event", "another's aggregate", who=f"stranger {site}")
        self._world.trace.note("stranger", "writes", subject, f"as {source}")
        forged = f"{FORGED}{len(self._world.events.messages)}"
        envelope = {"specversion": "1.0", "id": forged, "source": source, "time": "2026-01-01T00:00:00Z", **fields}
        self._world.events.append([(subject, msgspec.json.encode(envelope), forged)])

    def babble(self, site: str) -> None:
        """A message that is no command, where commands are expected."""
        chance = self._chance
        what = chance.choice((b"", b"{", b"\xff\xfe", b'{"specversion":"0.3","id":"x"}', b"[]"))
        id = f"{BABBLE}{len(self._world.babble)}"
        self._world.babble.add(id)
        if chance.random() < 0.5:
            subject = hub_command(principal="admin", aggregate="instance", id=id, verb="stop")
            self._world.trace.hit("no command", "JOBS", who="stranger")
            self._world.jobs.enqueue(subject, what, id)
        else:
            subject = site_command(site=site, principal="admin", aggregate="instance", id=id, verb="stop")
            self._world.trace.hit("no command", "CMD", who="stranger")
            self._world.commands.enqueue(subject, what, id)
        self._world.trace.note("stranger", "sends", subject, repr(what))

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
        signed = "trusted" if trusted else "signed by nobody's key"
        self._world.trace.note("stranger", "leaves", image, site, repository, signed)
        self._world.trace.hit("strange image", repository, who="stranger")
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
        self._world.trace.hit("copy taken", repository, who="stranger")


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
