"""The cells of the fault matrix: who is killed at which moment of which step. They follow from the product's own plans.

What is said here by hand is only who takes part in a step, by its action. An action that nobody wrote down has cells
for every kind of broker: those that it never asks are reported as not reached, so that somebody says whom it asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from hub.domain import images
from hub.manifest import load_template
from schemas import events as ev
from schemas.commands import RunImage
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
    plans.STAGE: ("dsb",),
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
}
"""Which brokers of its site an action has do something."""
EVERYBODY = ("dsb", "psb", "crb")

SITE_KINDS = ("deploy", "run", "save", "stop", "start", "delete")
"""Operations of one site alone."""
HUB_KINDS = {"run elsewhere": "transfer", "delete image": "forget"}
"""Operations that the hub has sites carry out, and the operation of a site whose steps belong to it."""


@dataclass(frozen=True, order=True)
class Cell:
    """One kill: of ``victim`` at ``moment`` of ``step`` in an operation of ``kind``.

    ``inside`` is where in the operation the step is: empty, or the step of the hub's operation that a site carries out.
    """

    kind: str
    step: str
    victim: str
    moment: str
    inside: str = ""

    def __str__(self) -> str:
        inside = f"{self.inside}/" if self.inside else ""
        return f"{self.kind}/{inside}{self.step}/{self.victim}/{self.moment}".replace(" ", "-")

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
    return [cell for kind in (*SITE_KINDS, *HUB_KINDS) for cell in cells_of(kind)]


def cells_of(kind: str) -> Iterator[Cell]:
    """The cells of one kind of operation."""
    if kind in SITE_KINDS:
        yield from _pairs(kind, ACCEPT, ("agent",))
        yield from (Cell(kind, FORWARD, "hub", moment) for moment in (BEFORE, SENT))
        yield from _of_site(kind, site_steps(kind))
        return
    yield from _pairs(kind, ACCEPT, ("hub",))
    for step in hub_steps(kind):
        yield from (Cell(kind, step.id, "hub", moment) for moment in (BEFORE, SENT, AFTER))
        yield from (Cell(kind, ACCEPT, "agent", moment, inside=step.id) for moment in (BEFORE, AFTER))
    inside = f"{HUB_KINDS[kind]}-{TARGET}"
    yield from _of_site(kind, site_steps(HUB_KINDS[kind]), inside=inside)


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
