"""Projections: what the events add up to, whichever way the writers' streams were interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.records import Recorded, UnknownEvent
from hub.projections import views
from hub.projections.state import Projections
from schemas import events as ev
from schemas import saga
from schemas.commands import Answer
from schemas.events import Event
from schemas.operations import Step
from schemas.queries import AppView
from schemas.values import Attachment, Template
from tests.unit.hub.scenes import (
    BY,
    PROBLEM,
    SHOP,
    WRITERS,
    Told,
    accepted,
    content,
    located,
    recorded,
)

IDS = st.sampled_from(["a", "b"])
INSTANCE_EVENTS: list[Event] = [
    ev.InstanceDeploying(name="shop", template=SHOP, by=BY),
    ev.ServiceDeployed(service="web", broker="process"),
    ev.ServiceHealthChanged(service="web", healthy=False),
    ev.InstanceRunning(url="u"),
    ev.InstanceDegraded(message="m"),
    ev.InstanceStopping(),
    ev.InstanceStopped(),
    ev.InstanceDeleted(),
    ev.InstanceFailed(problem=PROBLEM),
]
STEP = Step(id="s", action="a", part="p")
OPERATION_EVENTS: list[Event] = [
    *saga.accept(accepted(STEP)),
    ev.StepSucceeded(step="s", attempt=1),
    ev.OperationSucceeded(),
    ev.CancelRequested(by=BY),
    ev.UndoStarted(cancelled=True),
    ev.OperationCancelled(),
]
MORE_OF_OPERATIONS: list[Event] = [
    ev.StepStarted(step="s", attempt=2),
    ev.StepStarted(step="none", attempt=1),
    ev.StepFailed(step="s", attempt=1, problem=PROBLEM, final=False),
    ev.StepFailed(step="s", attempt=2, problem=PROBLEM, final=True),
    ev.UndoStarted(problem=PROBLEM),
    ev.StepUndoFailed(step="s", attempt=1, problem=PROBLEM),
    ev.StepUndone(step="s"),
    ev.OperationSucceeded(result={"url": "u"}),
    ev.OperationFailed(problem=PROBLEM, cleanup="pending"),
    ev.OperationFailed(problem=PROBLEM, cleanup="done"),
    ev.OperationCleanedUp(),
]
CATALOG_EVENTS: list[Event] = [
    ev.CatalogEntered(name="golden", site="north", instance="a", by=BY),
    ev.CatalogWithdrawn(problem=PROBLEM),
    ev.CatalogDeleted(by=BY),
]


def told(aggregate: str, events: Sequence[Event]) -> st.SearchStrategy[Told]:
    return st.tuples(st.just(aggregate), IDS, st.sampled_from(events))


@st.composite
def site_stories(draw: st.DrawFn, site: str) -> list[Told]:
    images: list[Event] = [
        ev.ImageSaving(instance="a", instance_name="shop", template="shop@1", copies={"db": "c1"}),
        ev.ImageSaved(content=content("a", site=site)),
        ev.ImageFailed(problem=PROBLEM),
    ]
    one = st.one_of(
        told("instance", INSTANCE_EVENTS),
        told("operation", OPERATION_EVENTS),
        told("image", images),
        told("command", [ev.CommandRejected(problem=PROBLEM, kind="k")]),
        st.just(located(site)),
        st.just((*located(site)[:2], ev.LocationRemoved(copy="c1", repository=f"{site}/main"))),
    )
    return draw(st.lists(one, max_size=12))


@st.composite
def hub_stories(draw: st.DrawFn) -> list[Told]:
    members: list[Event] = [ev.SiteJoined(), ev.SiteOnline(), ev.SiteStale(), ev.SiteOffline()]
    one = st.one_of(
        told("operation", OPERATION_EVENTS),
        told("catalog", CATALOG_EVENTS),
        st.tuples(st.just("membership"), st.sampled_from(["north", "south"]), st.sampled_from(members)),
    )
    return draw(st.lists(one, max_size=12))


@st.composite
def interleavings(draw: st.DrawFn, stories: dict[str, list[Told]]) -> list[Recorded]:
    """All events, each writer's in their order."""
    turns = draw(st.permutations([writer for writer, story in stories.items() for _ in story]))
    left = {writer: iter(recorded(writer, story)) for writer, story in stories.items()}
    return [next(left[writer]) for writer in turns]


def project(events: Sequence[Recorded]) -> Projections:
    state = Projections()
    state.apply(events)
    return state


def everything(state: Projections) -> dict[str, Any]:
    """All that anybody may ask for."""
    operations = list(state.operations.rows.values())
    return {
        "apps": sorted(views.app_views(state, state.apps.known()), key=lambda app: (app.site, app.id)),
        "unassigned": state.apps.unassigned(),
        "images": views.image_views(state, sorted(state.images.entries)),
        "facts": {id: views.image_facts(state, id) for id in state.images.entries},
        "operations": {(row.writer, row.id): views.operation_view(state, row) for row in operations},
        "live": sorted((row.writer, row.id) for row in state.operations.live_rows()),
        "brokers": views.broker_views(state),
        "sites": dict(views.site_states(state, {"north": "joining"})),
        "templates": [views.template_view(row) for row in state.templates.rows.values()],
        "announced": state.sites.announced,
        "answers": {id: views.answer_of(state, id) for id in state.operations.by_id},
    }


@settings(max_examples=40)
@given(st.data())
def test_the_order_between_writers_does_not_matter(data: st.DataObject) -> None:
    stories = {
        "north": data.draw(site_stories("north")),
        "south": data.draw(site_stories("south")),
        "hub": data.draw(hub_stories()),
    }
    one, other = data.draw(interleavings(stories)), data.draw(interleavings(stories))
    assert everything(project(one)) == everything(project(other))


@settings(max_examples=40)
@given(st.data())
def test_the_story_is_the_same_in_any_interleaving(data: st.DataObject) -> None:
    state = project(data.draw(interleavings(WRITERS)))
    (image,) = views.image_views(state, state.images.entries)
    assert (image.name, image.state, image.sites, image.tags) == ("golden", "saved", ("north", "south"), ("v1",))
    assert image.parts[0].locations == ("north/main", "south/main")
    shop, two = sorted(views.app_views(state, state.apps.known()), key=lambda app: app.name)
    assert (shop.name, shop.status, shop.stale, shop.url) == ("shop", "UP", False, "http://h:1")
    assert (shop.data_services[0].state, shop.data_services[0].binding) == ("bound", {"host": "h"})
    assert (two.name, two.status, two.stale, two.message) == ("two", "ERROR", True, "it broke")
    assert state.apps.unassigned() == ["north/lost/web"]
    run = state.operations.get("hub", "run")
    assert run is not None
    assert views.operation_view(state, run).children == ("run/transfer-south/1",)
    assert views.answer_of(state, "refused") == Answer(
        command="refused", state="rejected", problem=PROBLEM, site="north"
    )


def test_in_batches_or_at_once_is_the_same() -> None:
    events = [each for writer, story in WRITERS.items() for each in recorded(writer, story)]
    one = project(events)
    other = Projections()
    for each in events:
        other.apply([each])
    assert everything(one) == everything(other)
    assert one.events == other.events == len(events)


def test_an_unknown_event_stops_its_aggregate_and_no_other() -> None:
    events = recorded("north", WRITERS["north"])
    at = next(number for number, each in enumerate(events) if each.id == "i1")
    newer = events[at]._replace(event=UnknownEvent("calque.event.instance.cloned.v1", b"{}"))
    state = project([*events[: at + 1], newer, *events[at + 1 :]])
    (app,) = views.app_views(state, state.apps.known())
    assert (app.id, app.state) == ("i1", "deploying")
    assert state.images.state_of("img") is None
    assert state.images.contents["north", "img"].content is not None


def test_nobody_writes_what_is_another_s() -> None:
    told: list[Told] = [
        ("catalog", "x", ev.CatalogEntered(name="mine", site="south", instance="i", by=BY)),
        ("membership", "north", ev.SiteOffline()),
        ("template", "shop@1", ev.TemplateApplied(template=SHOP, digest="forged", by=BY)),
    ]
    state = project([*recorded("hub", WRITERS["hub"]), *recorded("south", told)])
    assert list(state.images.entries) == ["img"]
    assert state.sites.states["north"] == "online"
    assert state.templates.rows["shop@1"].applied.digest == "d"


def test_the_content_of_an_image_is_that_of_its_own_site() -> None:
    forged: list[Told] = [("image", "img", ev.ImageSaved(content=content(site="south", copy="other")))]
    state = project([*recorded("hub", WRITERS["hub"]), *recorded("south", forged)])
    assert state.images.state_of("img") == "saving"
    state.apply(recorded("north", WRITERS["north"]))
    facts = views.image_facts(state, "img")
    assert facts is not None
    assert set(facts.copies) == {"c1"}


def statuses(*events: Event) -> tuple[str, str]:
    begin: list[Event] = [ev.InstanceDeploying(name="shop", template=SHOP, by=BY)]
    state = project(recorded("north", [("instance", "i", event) for event in [*begin, *events]]))
    (app,) = views.app_views(state, state.apps.known())
    return app.status, app.services[0].status if app.services else ""


def test_the_status_of_an_app_is_derived_from_its_services() -> None:
    deployed = ev.ServiceDeployed(service="web", broker="process")
    up: list[Event] = [deployed, ev.InstanceRunning()]
    assert statuses() == ("PENDING", "PENDING")
    assert statuses(*up) == ("UP", "UP")
    assert statuses(*up, ev.ServiceHealthChanged(service="web", healthy=False)) == ("DOWN", "DOWN")
    assert statuses(*up, ev.InstanceDegraded(message="database away")) == ("DOWN", "UP")
    assert statuses(*up, ev.InstanceStopping()) == ("PENDING", "PENDING")
    assert statuses(*up, ev.InstanceStopping(), ev.InstanceStopped()) == ("DOWN", "DOWN")
    assert statuses(*up, ev.InstanceStopped(), ev.InstanceStarting()) == ("PENDING", "PENDING")
    assert statuses(*up, ev.InstanceFailed(problem=PROBLEM))[0] == "ERROR"
    assert statuses(*up, ev.InstanceDeleted())[0] == "DOWN"


def test_an_app_with_no_services_is_not_up() -> None:
    bare = ev.InstanceDeploying(name="bare", template=type(SHOP)(name="bare", version="1"), by=BY)
    state = project(recorded("north", [("instance", "i", bare), ("instance", "i", ev.InstanceRunning())]))
    (app,) = views.app_views(state, state.apps.known())
    assert app.status == "DOWN"


def test_an_adopted_app_is_as_its_data_services_are_and_shows_what_is_attached() -> None:
    name, spec = next(iter(SHOP.data_services.items()))
    attached = {each: Attachment(url="postgresql://reader@db/shop") for each in SHOP.data_services}
    begin = ev.InstanceDeploying(name="shop", template=SHOP, by=BY, attached=attached, adopted=True)
    found = ev.DataServiceProvisioned(data_service=name, spec=spec, broker="postgres", plan="", origin="attached")

    def seen(*events: Event) -> AppView:
        state = project(recorded("north", [("instance", "i", each) for each in (begin, found, *events)]))
        (app,) = views.app_views(state, state.apps.known())
        return app

    ill = ev.DataServiceHealthChanged(data_service=name, healthy=False, message="away")
    well = ev.DataServiceHealthChanged(data_service=name, healthy=True)
    assert seen().status == "PENDING"
    app = seen(ev.InstanceRunning())
    assert (app.status, app.adopted, app.services) == ("UP", True, ())
    assert {each.name: each.origin for each in app.data_services} == dict.fromkeys(SHOP.data_services, "attached")
    assert seen(ev.InstanceRunning(), ill, ev.InstanceDegraded(message="away")).status == "DOWN"
    assert seen(ev.InstanceRunning(), ill, well, ev.InstanceRunning()).status == "UP"
    gone = seen(ev.InstanceRunning(), ev.DataServiceDetached(data_service=name), ev.InstanceDeleted())
    assert {each.state for each in gone.data_services} == {"detached"}


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*OPERATION_EVENTS, *MORE_OF_OPERATIONS]), max_size=14))
def test_an_operation_is_what_the_state_machine_of_sagas_makes_of_it(events: list[Event]) -> None:
    state = project(recorded("north", [("operation", "o", event) for event in events]))
    row = state.operations.get("north", "o")
    wanted = saga.fold("o", events)
    assert (row and state.operations.whole(row)) == wanted
    if row is None or wanted is None:
        return
    assert (row.state, row.live, row.outcome) == (wanted.state, wanted.live, wanted.outcome)
    assert (("north", "o") in state.operations.live) == wanted.live
    assert (row.open is None) == (not wanted.live)


def test_templates_are_shared_by_what_carries_them_and_no_number_stops_that() -> None:
    huge = msgspec.structs.replace(SHOP, services={"web": msgspec.structs.replace(SHOP.services["web"], port=10**40)})
    told: list[Told] = [
        ("instance", f"i{number}", ev.InstanceDeploying(name=f"shop-{number}", by=BY, template=copied))
        for number, copied in enumerate((msgspec.json.decode(msgspec.json.encode(SHOP), type=Template), SHOP, huge))
    ]
    state = project(recorded("north", [*told, ("image", "img", ev.ImageSaved(content=content("img")))]))
    first, second, third = (row.deploying.template for row in state.apps.rows.values() if row.deploying is not None)
    assert first is second
    assert third == huge
    saved = state.images.contents["north", "img"].content
    assert saved == content("img")
    assert saved is not None
    assert saved.instances[0].configuration.template is first


def test_a_location_that_is_told_of_another_copy_is_none_of_the_one_before() -> None:
    def added(copy: str) -> tuple[str, str, Event]:
        return "location", "l", ev.LocationAdded(copy=copy, repository="main", image="m", stored=1)

    removed = ("location", "l", ev.LocationRemoved(copy="c1", repository="main"))
    moved = project(recorded("north", [added("c1"), added("c2")]))
    assert [sorted(moved.images.holders(copy)) for copy in ("c1", "c2")] == [[], ["north"]]
    gone = project(recorded("north", [added("c1"), added("c2"), removed]))
    assert (gone.images.locations, gone.images.by_copy) == ({}, {})
