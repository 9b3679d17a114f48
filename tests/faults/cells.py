"""The cells of the fault matrix: who is killed at which moment of which step. They follow from the product's own plans.

What is said here by hand is only who takes part in a step, by its action. An action that nobody wrote down has cells
for every kind of broker: those that it never asks are reported as not reached, so that somebody says whom it asks.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from hub.domain import images
from hub.manifest import load_template
from schemas import events as ev
from schemas.commands import RunImage, TransferImage
from schemas.operations import Step
from schemas.values import ImageContent, ImageInstance, ImagePart, InstanceConfiguration, Requester, Template
from site_agent.domain import instance as instances
from site_agent.domain import plans
from site_agent.domain.instance import Instance

TEMPLATE = Path(__file__).parent / "apps" / "ledger" / "cell.yaml"
SOURCE, TARGET = "north", "south"
"""The site where the images of the cells that span sites are saved, and the one that gets them."""

BEFORE, SENT, AFTER = "before", "sent", "after"
ACCEPT, FORWARD = "accept", "forward"

ASKED: Final = {
    plans.PROVISION: ("dsb",),
    plans.RESTORE: ("dsb",),
    plans.DEPROVISION: ("dsb",),
    plans.BIND: ("dsb",),
    plans.UNBIND: ("dsb",),
    plans.DEPLOY: ("psb",),
    plans.STOP: ("psb",),
    plans.REMOVE: ("psb",),
    plans.ARM: (),
    plans.BEFORE_COPY: ("psb",),
    plans.STAGE: ("crb", "dsb"),
    plans.UNSTAGE: ("dsb", "crb"),
    plans.QUIESCE: ("psb",),
    plans.PREPARE: ("dsb",),
    plans.THAW: ("psb",),
    plans.COPY: ("crb", "dsb"),
    plans.DISCARD: ("dsb",),
    plans.COMMIT: ("crb",),
    plans.AFTER_COPY: ("psb",),
    plans.RECORD: ("crb",),
    plans.FETCH: ("crb",),
    plans.FORGET: ("crb",),
    plans.DROP: ("crb",),
    plans.BEFORE_RESTORE: ("psb",),
    plans.AFTER_RESTORE: ("psb",),
    plans.ABORT: ("crb",),
    plans.LET_BE: (),
}
"""Which brokers of its site an action has do something."""
EVERYBODY = ("dsb", "psb", "crb")

SITE_KINDS = ("deploy", "run", "save", "stop", "start", "delete")
"""Operations of one site alone."""
FORWARDED_KINDS = ("deploy", "save")
"""Operations of sites whose command has cells at the hub, which passes all of them on in the same way, but for a save,
of which it makes an entry."""
UNDONE_KINDS = {"deploy undone": "deploy", "save undone": "save"}
"""Operations whose last step fails for good, so that all steps are undone; the kill is in the undoing of one."""
HUB_KINDS = {"transfer image": "transfer", "run elsewhere": "", "delete image": "forget"}
"""Operations that the hub has sites carry out, and the operation of the target whose steps have cells there: an image
that is run elsewhere is transferred as others are, and run as others are."""

SITE_SERVERS = ("nats", "postgres", "s3")
HUB_SERVERS = ("hub", "hub-nats")
SEED = int(os.environ.get("CALQUE_FAULT_SEED", "1"))
"""What chooses the moments at which servers die. A run says it in the names of its cells."""


@dataclass(frozen=True, order=True)
class Cell:
    """One kill: of ``victim`` at ``moment`` of ``step`` in an operation of ``kind``.

    ``inside`` is where in the operation the step is: empty, or the step of the hub's operation that a site carries out.
    When a ``server`` is named it is what dies, as ``victim`` comes to that moment; ``seed`` is what chose the moment.
    """

    kind: str
    step: str
    victim: str
    moment: str
    inside: str = ""
    server: str = ""
    seed: int = 0

    def __str__(self) -> str:
        inside = f"{self.inside}/" if self.inside else ""
        server = f"/{self.server}/seed-{self.seed}" if self.server else ""
        return f"{self.kind}/{inside}{self.step}/{self.victim}/{self.moment}{server}".replace(" ", "-")

    @property
    def alone(self) -> bool:
        """Whether both sites feel it."""
        return self.kind in HUB_KINDS or self.server in HUB_SERVERS or self.victim == "hub"

    @property
    def may_fail(self) -> bool:
        """Whether an operation that fails, and leaves nothing behind, is a good end: when what dies is a server, a data
        service broker whose prepared moment dies with it, or whoever takes part in a step that is tried once."""
        volatile = self.kind == "save" and self.victim == "dsb" and self.step.startswith((plans.PREPARE, plans.COPY))
        once = {step.id for step in site_steps("save") if step.attempts == 1} if self.kind == "save" else set()
        return bool(self.server) or volatile or self.step in once

    @property
    def fails(self) -> str:
        """The step that has to fail, so that what was done is undone; empty for none."""
        return site_steps(UNDONE_KINDS[self.kind])[-1].id if self.kind in UNDONE_KINDS else ""

    def operation(self, command: str) -> str:
        """The id of the operation that the step is of, when ``command`` starts the whole."""
        return f"{command}/{self.inside}/1" if self.inside else command

    def label(self, command: str) -> str:
        """The label of :mod:`tests.faults.armed`."""
        return f"{self.operation(command)}/{self.step}/{self.victim}/{self.moment}"


@cache
def template() -> Template:
    """What the operations of the matrix are about."""
    return load_template(TEMPLATE)


def every_cell() -> list[Cell]:
    """All cells, in the order of the steps."""
    return [
        *(cell for kind in SITE_KINDS for cell in (*cells_of(kind), *seeded(kind))),
        *(cell for kind in UNDONE_KINDS for cell in cells_of(kind)),
        *(cell for kind in HUB_KINDS for cell in (*cells_of(kind), *seeded(kind))),
    ]


def seeded(kind: str, *, seed: int = SEED) -> Iterator[Cell]:
    """Each server that the operation touches dies once, at a moment that the seed chooses."""
    moments = [cell for cell in cells_of(kind) if cell.victim != "hub" and cell.step not in (ACCEPT, FORWARD)]
    servers = SITE_SERVERS if kind in SITE_KINDS and kind not in FORWARDED_KINDS else (*SITE_SERVERS, *HUB_SERVERS)
    for server in servers if moments else ():
        dice = random.Random(f"{seed} {kind} {server}")
        yield replace(dice.choice(moments), server=server, seed=seed)


def cells_of(kind: str) -> Iterator[Cell]:
    """The cells of one kind of operation."""
    if kind in SITE_KINDS:
        yield from _pairs(kind, ACCEPT, ("agent",))
        if kind in FORWARDED_KINDS:
            yield from (Cell(kind, FORWARD, "hub", moment) for moment in (BEFORE, SENT))
        yield from _of_site(kind, site_steps(kind))
        return
    if kind in UNDONE_KINDS:
        for step in site_steps(UNDONE_KINDS[kind]):
            if step.undo is None:
                continue
            # The hook that takes `before_copy` back has run as a step of its own, most often, when the last one fails.
            asked = ASKED.get(step.undo, EVERYBODY) if step.action != plans.ARM else ()
            for victim in ("agent", *asked):
                yield Cell(kind, f"{step.id}-undo", victim, AFTER)
        return
    yield from _pairs(kind, ACCEPT, ("hub",))
    for step in hub_steps(kind):
        yield from (Cell(kind, step.id, "hub", moment) for moment in (BEFORE, SENT, AFTER))
        yield from (Cell(kind, ACCEPT, "agent", moment, inside=step.id) for moment in (BEFORE, AFTER))
    if HUB_KINDS[kind]:
        yield from _of_site(kind, site_steps(HUB_KINDS[kind]), inside=f"{HUB_KINDS[kind]}-{TARGET}")


def _of_site(kind: str, steps: Iterable[Step], *, inside: str = "") -> Iterator[Cell]:
    for step in steps:
        yield from _pairs(kind, step.id, ("agent", *ASKED.get(step.action, EVERYBODY)), inside=inside)


def _pairs(kind: str, step: str, victims: Iterable[str], *, inside: str = "") -> Iterator[Cell]:
    for victim in victims:
        yield from (Cell(kind, step, victim, moment, inside=inside) for moment in (BEFORE, AFTER))


def site_steps(kind: str) -> tuple[Step, ...]:
    """The plan of an operation of a site, as the agent makes it."""
    data = tuple(template().data_services)
    match kind:
        case "deploy":
            return plans.deploy(template())
        case "run":
            return plans.deploy(template(), restored=data, from_image=True)
        case "save":
            return plans.save(_running())
        case "stop":
            return plans.stop(template())
        case "start":
            return plans.start(_running())
        case "delete":
            return plans.delete(_running())
        case "transfer":
            return plans.transfer(data)
        case "forget":
            return plans.forget(data)
    raise ValueError(kind)


def hub_steps(kind: str) -> tuple[Step, ...]:
    """The plan of an operation of the hub, as the hub makes it."""
    by, content = Requester(principal="admin"), _content()
    match kind:
        case "transfer image":
            wanted = TransferImage(site=TARGET)
            return images.plan_transfer(wanted, image=content.image, way=images.Across(content, SOURCE), by=by).steps
        case "run elsewhere":
            command = RunImage(instance="instance", name="copy", site=TARGET)
            return images.plan_run(command, image=content.image, way=images.Across(content, SOURCE), by=by).steps
        case "delete image":
            copies = {copy: frozenset({SOURCE, TARGET}) for copy in images.copies_of(content)}
            facts = images.ImageFacts(content.image, "image", "saved", content, copies)
            return images.plan_delete(facts, by=by).steps
    raise ValueError(kind)


def _running() -> Instance:
    """An instance of the template that runs."""
    brokers = dict.fromkeys((*template().services, *template().data_services), "broker")
    begun = ev.InstanceDeploying(name="cell", template=template(), by=Requester(principal="admin"), brokers=brokers)
    instance = instances.evolve(instances.evolve(None, "instance", begun), "instance", ev.InstanceRunning())
    assert instance is not None
    return instance


def _content() -> ImageContent:
    """What an image of the template names."""
    parts = tuple(
        ImagePart(data_service=name, type=spec.type, broker="broker", plan="", copy=name, copy_format="", level="crash")
        for name, spec in template().data_services.items()
    )
    configuration = InstanceConfiguration(template=template())
    saved = ImageInstance(instance="instance", instance_name="cell", configuration=configuration, parts=parts)
    return ImageContent(image="image", site=SOURCE, level="crash", instances=(saved,))
