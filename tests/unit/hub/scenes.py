"""Events as several writers tell them, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from bus.records import Recorded
from schemas import events as ev
from schemas import saga
from schemas.envelope import wrap
from schemas.events import Event
from schemas.names import location_token
from schemas.operations import Step
from schemas.problems import permanent
from schemas.values import (
    Artifact,
    Binding,
    DataServiceSpec,
    ImageContent,
    ImageInstance,
    ImagePart,
    InstanceConfiguration,
    Requester,
    ServiceSpec,
    Template,
)

BY = Requester(principal="alice")
SHOP = Template(
    name="shop",
    version="1",
    services={"web": ServiceSpec(artifact=Artifact(directory="/srv/shop", command=("serve",)), type="public", port=80)},
    data_services={"db": DataServiceSpec(type="database")},
    entrypoint="web",
)
PROBLEM = permanent("broken", "it broke")
Told = tuple[str, str, Event]


def content(image: str = "img", *, site: str = "north", copy: str = "c1") -> ImageContent:
    part = ImagePart(
        data_service="db",
        type="database",
        broker="postgres",
        plan="small",
        copy=copy,
        copy_format="test",
        level="application",
        size=10,
        stored=5,
    )
    instance = ImageInstance(
        instance="i1", instance_name="shop", configuration=InstanceConfiguration(template=SHOP), parts=(part,)
    )
    return ImageContent(image=image, site=site, level="application", instances=(instance,))


def located(site: str, *, copy: str = "c1", image: str = "img") -> Told:
    place = f"{site}/main"
    return "location", location_token(copy, place), ev.LocationAdded(copy=copy, repository=place, image=image)


def accepted(*steps: Step, kind: str = "deploy", target: str = "i1", parent: str | None = None) -> ev.OperationAccepted:
    return ev.OperationAccepted(kind=kind, target=target, name="shop", by=BY, steps=steps, parent=parent)


NORTH: list[Told] = [
    ("site", "north", ev.SiteAnnounced(version="1", seal_key="aa", crb_fingerprint="bb")),
    ("broker", "dsb-postgres", ev.BrokerRegistered(kind="dsb", name="postgres", version="1", types=("database",))),
    ("instance", "i1", ev.InstanceDeploying(name="shop", template=SHOP, by=BY)),
    *(("operation", "o1", event) for event in saga.accept(accepted(Step(id="web", action="deploy", part="web")))),
    (
        "instance",
        "i1",
        ev.DataServiceProvisioned(data_service="db", spec=SHOP.data_services["db"], broker="postgres", plan="small"),
    ),
    (
        "instance",
        "i1",
        ev.DataServiceBound(data_service="db", binding=Binding(id="b", data_service="db", attributes={"host": "h"})),
    ),
    ("instance", "i1", ev.ServiceDeployed(service="web", broker="process", url="http://h:1")),
    ("operation", "o1", ev.StepSucceeded(step="web", attempt=1)),
    ("operation", "o1", ev.OperationSucceeded()),
    ("instance", "i1", ev.InstanceRunning(url="http://h:1")),
    ("image", "img", ev.ImageSaving(instance="i1", instance_name="shop", template="shop@1", copies={"db": "c1"})),
    ("copy", "c1", ev.CopyPreparing(instance="i1", data_service="db", image="img", broker="postgres")),
    ("copy", "c1", ev.CopyPrepared(moment="m", level="application")),
    located("north"),
    ("image", "img", ev.ImageSaved(content=content())),
    ("instance", "lost", ev.ServiceDeployed(service="web", broker="process")),
    ("command", "refused", ev.CommandRejected(problem=PROBLEM, kind="stop")),
]
SOUTH: list[Told] = [
    *(
        ("operation", "run/transfer-south/1", event)
        for event in saga.accept(accepted(kind="transfer", target="img", parent="run"))
    ),
    located("south"),
    ("instance", "i2", ev.InstanceDeploying(name="two", template=SHOP, by=BY, image="img")),
    ("instance", "i2", ev.InstanceFailed(problem=PROBLEM, cleaned=True)),
]
HUB: list[Told] = [
    ("template", "shop@1", ev.TemplateApplied(template=SHOP, digest="d", by=BY)),
    ("membership", "north", ev.SiteJoined()),
    ("membership", "north", ev.SiteOnline()),
    ("membership", "south", ev.SiteJoined()),
    ("membership", "south", ev.SiteStale()),
    ("claim", "default~image~golden", ev.ClaimTaken(owner="img")),
    ("catalog", "img", ev.CatalogEntered(name="golden", site="north", instance="i1", by=BY, tags=("v1",))),
    *(
        ("operation", "run", event)
        for event in saga.accept(accepted(Step(id="transfer-south", action="transfer", part="south"), kind="run"))
    ),
    ("operation", "run", ev.StepSucceeded(step="transfer-south", attempt=1)),
    ("operation", "run", ev.OperationSucceeded()),
]
WRITERS: dict[str, list[Told]] = {"north": NORTH, "south": SOUTH, "hub": HUB}


def recorded(writer: str, told: Sequence[Told]) -> list[Recorded]:
    """As the writer's stream holds them; times grow with the position."""
    found: list[Recorded] = []
    for number, (aggregate, id, event) in enumerate(told, start=1):
        envelope = wrap(
            event,
            id=f"{writer}/{number}",
            source=writer,
            time=f"2026-01-01T00:00:{number:02}.000000Z",
            operationid=f"op-{id}",
            causationid=f"cause-{writer}-{number}",
        )
        found.append(Recorded(number, writer, aggregate, id, event, envelope))
    return found
