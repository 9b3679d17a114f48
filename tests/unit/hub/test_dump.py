"""Dumps of the projections: canonical, complete, and as good a start as the events themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bus.records import Recorded, UnknownEvent
from hub.projections.dump import TABLES, Difference, Line, differences, dump, load
from hub.projections.state import Projections
from schemas import events as ev
from schemas.values import Requester
from schemas.webhooks import WebhookSpec
from tests.unit.hub.scenes import BY, SHOP, WRITERS, Told, recorded
from tests.unit.hub.test_projections import everything, hub_stories, interleavings, project, site_stories

SECRETS: list[Told] = [
    ("secret", "db", ev.SecretSet(version=2, by=BY)),
    ("secret", "old", ev.SecretSet(version=1, by=BY)),
    ("secret", "old", ev.SecretRemoved(by=BY)),
    ("broker", "crb-main", ev.BrokerRegistered(kind="crb", name="main", version="1", signing_key="ab" * 32)),
]
HOOKS: list[Told] = [
    ("webhook", "chat", ev.WebhookAdded(spec=WebhookSpec(url="https://chat.example/hook"), by=BY)),
    ("template", "shop@2", ev.TemplateApplied(template=SHOP, digest="d2", by=Requester(principal="bob"))),
]


def stories() -> dict[str, list[Told]]:
    return {writer: [*story, *(HOOKS if writer == "hub" else SECRETS)] for writer, story in WRITERS.items()}


def tables(state: Projections) -> dict[str, Any]:
    """Every attribute of every table, indexes too; what is yet to be looked at by the index of images is not one."""
    found: dict[str, Any] = {"stopped": state.stopped, "taken": state.taken}
    for name, part in vars(state).items():
        if hasattr(part, "__dict__") and name != "_image_index":
            found.update({f"{name}.{table}": content for table, content in vars(part).items() if table[0] != "_"})
    del found["images.changed"], found["images.changed_copies"]
    for name, index in (
        ("images.by_copy", state.images.by_copy),
        ("apps.by_id", state.apps.by_id),
        ("apps.by_name", state.apps.by_name),
    ):
        found[name] = {value: sorted(keys) for value, keys in index.items()}
    found["sites.brokers_at"] = {
        site: sorted(state.sites.brokers_at(site), key=lambda row: (row.registered.kind, row.registered.name))
        for site, _ in state.sites.brokers
    }
    return found


@st.composite
def histories(draw: st.DrawFn) -> list[Recorded]:
    told = {
        "north": draw(site_stories("north")),
        "south": draw(site_stories("south")),
        "hub": draw(hub_stories()),
    }
    events = draw(interleavings(told))
    return [
        each._replace(event=UnknownEvent("calque.event.x.y.v9", b"{}")) if draw(st.integers(0, 30)) == 0 else each
        for each in events
    ]


def test_a_dump_holds_every_table() -> None:
    state = project([each for writer, story in stories().items() for each in recorded(writer, story)])
    names = {table.name for table in TABLES}
    assert names == set(Line.__struct_fields__)
    empty = {table.name for table in TABLES if not table.of(state)}
    assert empty <= {"stopped", "webhook_commands"}
    assert tables(load(dump(state))) == tables(state)


@settings(max_examples=50)
@given(st.data())
def test_the_same_state_is_the_same_bytes_whatever_the_order_of_writers(data: st.DataObject) -> None:
    one, other = data.draw(interleavings(stories())), data.draw(interleavings(stories()))
    assert dump(project(one)) == dump(project(other))


@settings(max_examples=150)
@given(histories(), st.data())
def test_a_dump_and_the_tail_are_what_a_replay_is(events: list[Recorded], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(events)))
    whole = project(events)
    state = load(dump(project(events[:at])))
    assert dump(state) == dump(project(events[:at]))
    state.apply(events[at:])
    assert dump(state) == dump(whole)
    assert tables(state) == tables(whole)
    assert everything(state) == everything(whole)


def test_the_newest_version_of_a_template_is_the_newest_after_a_load() -> None:
    applied: list[Told] = [
        ("template", f"shop@{version}", ev.TemplateApplied(template=SHOP, digest=version, by=BY))
        for version in ("9", "10", "1")
    ]
    assert load(dump(project(recorded("hub", applied)))).templates.newest("shop") == "shop@1"


def test_a_key_that_two_sites_sign_with_is_the_same_site_s_in_any_order() -> None:
    registered = [("broker", "crb-main", ev.BrokerRegistered(kind="crb", name="main", version="1", signing_key="k"))]
    one, other = recorded("north", registered), recorded("south", registered)
    assert project([*one, *other]).sites.signers == project([*other, *one]).sites.signers == {"k": "north"}


def test_a_difference_is_named_by_table_and_key() -> None:
    events = [each for writer, story in stories().items() for each in recorded(writer, story)]
    one, other = project(events), project(events)
    other.apps.rows["north", "i1"].message = "not what was told"
    other.operations.commands.clear()
    left, right = dump(one), dump(other)
    found = differences(left.splitlines(), right.splitlines())
    assert [(each.table, each.key) for each in found] == [("apps", "north/i1"), ("commands", "north/refused")]
    assert "not what was told" in (found[0].other or "")
    assert found[1].other is None
    assert differences(left.splitlines(), left.splitlines()) == []


def test_another_order_of_the_hub_s_own_rows_is_a_difference() -> None:
    events = recorded("hub", [*WRITERS["hub"], *HOOKS])
    one, other = project(events), project(events)
    first = next(iter(other.templates.rows))
    other.templates.rows[first] = other.templates.rows.pop(first)
    (found,) = differences(dump(one).splitlines(), dump(other).splitlines())
    assert found == Difference("templates", "(order)", "shop@1 shop@2", "shop@2 shop@1")
