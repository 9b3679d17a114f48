"""The hub's aggregates: given events, when a command, then events or a problem."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from hub.application.instances import copy_id
from hub.domain import catalog, claim, membership, template
from hub.domain.capability import lacking
from hub.domain.catalog import CatalogState
from hub.domain.claim import ClaimState
from hub.domain.images import Across, Here, ImageFacts, check_deletable, plan_delete, route_run
from hub.domain.received import Received, read
from hub.domain.template import TemplateState
from schemas import events as ev
from schemas.commands import ApplyTemplate, SaveInstance, StopInstance
from schemas.envelope import Envelope, wrap
from schemas.fitting import Offer
from schemas.names import check_name
from schemas.problems import Problem
from schemas.subjects import CommandSubject, inbox_of
from schemas.template_check import template_digest
from schemas.values import (
    BrokerKind,
    Choices,
    ImageContent,
    ImageInstance,
    InstanceConfiguration,
    Plan,
    SiteState,
)
from tests.unit.hub.scenes import BY, SHOP, content

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = CommandSubject("hub", "alice", "instance", "i1", "stop")


def envelope(**changes: object) -> Envelope:
    made = wrap(StopInstance(), id="0190-1", source="mallory", time="2026-01-01T00:00:00Z")
    return msgspec.structs.replace(made, **changes)


def refused(result: object) -> Problem:
    assert isinstance(result, Problem)
    return result


# --- commands as they come


def test_the_sender_is_the_subject_s_principal() -> None:
    received = read(SUBJECT, envelope(), now=NOW)
    assert isinstance(received, Received)
    assert (received.by.principal, received.by.team, received.kind) == ("alice", "default", "instance.stop")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "0190/run-south/1"}, "id"),
        ({"id": ""}, "id"),
        ({"type": "calque.command.hub.instance.start.v1"}, "type"),
        ({"expirytime": "soon"}, "expirytime"),
        ({"expirytime": "2025-12-31T23:59:59Z"}, "expirytime"),
        ({"replyto": "calque.cmd.site.north.root.instance.i1.delete"}, "replyto"),
        ({"replyto": "_INBOX.alice.>"}, "replyto"),
        ({"replyto": "_INBOX.bob.abc"}, "replyto"),
        ({"replyto": "_INBOX.abc"}, "replyto"),
        ({"data": msgspec.Raw(b'{"force":true}')}, "data"),
        ({"data": msgspec.Raw(b"nonsense")}, "data"),
    ],
)
def test_what_can_not_be_decided_is_refused_naming_the_field(changes: dict[str, object], field: str) -> None:
    assert refused(read(SUBJECT, envelope(**changes), now=NOW)).field == field


def test_an_unknown_verb_is_answered_with_those_that_there_are() -> None:
    problem = refused(read(SUBJECT._replace(verb="explode"), envelope(), now=NOW))
    assert problem.field == "subject"
    assert "instance.deploy" in str(problem.remedy)


def test_answers_go_to_inboxes_only() -> None:
    assert inbox_of("_INBOX.abc") == "_INBOX.abc"
    assert inbox_of("_INBOX.bills.01.x-y") == "_INBOX.bills.01.x-y"
    for other in (
        None,
        "",
        "_INBOX",
        "_INBOX.",
        "_INBOX..x",
        "_INBOX.x.",
        "_INBOX.*",
        "_INBOX.a b",
        "_INBOX." + "x" * 600,
    ):
        assert inbox_of(other) is None
    assert inbox_of("$JS.API.STREAM.DELETE.EVENTS") is None


# --- template


def test_a_template_is_applied_once() -> None:
    applied = template.decide(None, ApplyTemplate(template=SHOP), id="shop@1", by=BY)
    assert applied == [ev.TemplateApplied(template=SHOP, digest=template_digest(SHOP), by=BY)]
    state = TemplateState(template=SHOP, digest=template_digest(SHOP))
    assert template.decide(state, ApplyTemplate(template=SHOP), id="shop@1", by=BY) == []
    other = msgspec.structs.replace(SHOP, description="other")
    assert refused(template.decide(state, ApplyTemplate(template=other), id="shop@1", by=BY)).code == "conflict"


def test_a_template_s_id_is_made_of_name_and_version() -> None:
    problem = refused(template.decide(None, ApplyTemplate(template=SHOP), id="shop@2", by=BY))
    assert (problem.field, "shop@1" in str(problem.remedy)) == ("subject", True)


def test_all_faults_of_a_template_are_told_at_once() -> None:
    broken = msgspec.structs.replace(SHOP, name="Shop", entrypoint="nothing")
    problem = refused(template.decide(None, ApplyTemplate(template=broken), id="shop@1", by=BY))
    assert problem.field == "name"
    assert "entrypoint" in problem.sentence()


# --- catalog and claim

SAVE = SaveInstance(image="img", name="golden", tags=("v1",))
ENTERED = ev.CatalogEntered(name="golden", site="north", instance="i1", by=BY, tags=("v1",))


def test_an_image_takes_its_name() -> None:
    change = catalog.enter(None, ClaimState(), SAVE, site="north", instance="i1", by=BY)
    assert change == ([ENTERED], [ev.ClaimTaken(owner="img")])


def test_a_taken_name_names_its_owner() -> None:
    problem = refused(catalog.enter(None, ClaimState(owner="old"), SAVE, site="north", instance="i1", by=BY))
    assert (problem.code, problem.field) == ("conflict", "name")
    assert "old" in problem.message


def test_a_withdrawn_image_frees_its_name_once_and_only_its_own() -> None:
    state = catalog.evolve(None, ENTERED)
    mine, other = ClaimState(owner="img"), ClaimState(owner="other")
    withdrawn = ev.CatalogWithdrawn()
    released = [ev.ClaimReleased(owner="img")]
    assert catalog.withdraw(state, mine, image="img", problem=None) == ([withdrawn], released)
    assert catalog.withdraw(state, other, image="img", problem=None) == ([withdrawn], [])
    assert catalog.withdraw(catalog.evolve(state, withdrawn), mine, image="img", problem=None) == ([], [])
    assert claim.evolve(mine, released[0]) == ClaimState()
    assert claim.evolve(other, released[0]) == other


def test_a_deleted_image_stays_deleted() -> None:
    deleted = CatalogState(entered=ENTERED, status="deleted")
    assert catalog.delete(deleted, ClaimState(owner="img"), image="img", by=BY) == ([], [])


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (SaveInstance(image="i/1", name="golden"), "image"),
        (SaveInstance(image="i1", name="Golden"), "name"),
        (SaveInstance(image="i1", name="golden", tags=("ok", "not ok")), "tags[1]"),
    ],
)
def test_a_save_is_checked(command: SaveInstance, field: str) -> None:
    problem = catalog.check_save(command)
    assert problem is not None
    assert problem.field == field


def test_the_copies_of_a_save_are_the_same_however_often_it_is_sent() -> None:
    assert copy_id("command", "db") == copy_id("command", "db")
    assert len({copy_id("command", "db"), copy_id("command", "docs"), copy_id("other", "db")}) == 3


# --- membership


@pytest.mark.parametrize(
    ("state", "heard", "silence", "events"),
    [
        (None, True, 0.0, [ev.SiteJoined(), ev.SiteOnline()]),
        (None, False, 100.0, []),
        ("online", True, 9.0, []),
        ("online", False, 9.0, []),  # a hub that has just started has heard nobody yet
        ("online", True, 10.0, [ev.SiteStale()]),
        ("stale", True, 30.0, []),
        ("stale", True, 60.0, [ev.SiteOffline()]),
        ("online", True, 60.0, [ev.SiteOffline()]),
        ("offline", False, 5.0, []),
        ("offline", True, 0.0, [ev.SiteOnline()]),
        ("stale", True, 0.0, [ev.SiteOnline()]),
    ],
)
def test_sites_come_and_go(state: SiteState | None, heard: bool, silence: float, events: list[ev.Event]) -> None:
    assert membership.decide(state, heard=heard, silence_seconds=silence) == events


# --- what a site can serve


def broker(
    *types: str, name: str = "postgres", kind: BrokerKind = "dsb", plans: tuple[str, ...] = ("small",)
) -> ev.BrokerRegistered:
    offered = tuple(Plan(name=plan) for plan in plans)
    attributes = ("uri",)
    return ev.BrokerRegistered(kind=kind, name=name, version="1", types=types, plans=offered, attributes=attributes)


def test_a_site_serves_what_its_brokers_offer() -> None:
    platform = broker("process", name="process", kind="psb", plans=())

    def check(*brokers: ev.BrokerRegistered, plans: dict[str, str] | None = None) -> list[Problem]:
        return lacking(SHOP, Choices(plans=plans or {}), Offer("north", brokers), made_by={})

    assert check(broker("database"), platform) == []
    assert check() == []  # nothing is known yet: the site decides
    [problem] = check(broker("objectstore", name="s3"), platform)
    assert (problem.field, "s3 (objectstore)" in problem.sentence()) == ("data_services.db", True)
    [plan] = check(broker("database"), platform, plans={"db": "huge"})
    assert (plan.field, "small" in str(plan.remedy)) == ("plans.db", True)
    other = broker("image", name="kubernetes", kind="psb", plans=())
    fields = {each.field for each in check(broker("cache", name="redis"), other)}
    assert fields == {"data_services.db", "services.web.artifact"}


# --- images

SITES: dict[str, SiteState] = {"north": "online", "south": "online", "east": "online"}


def facts(*holders: str, **changes: object) -> ImageFacts:
    image = ImageFacts("img", "golden", "saved", content(), {"c1": frozenset(holders)})
    return image._replace(**changes)  # type: ignore[arg-type]


def test_the_way_to_run_an_image() -> None:
    assert route_run(facts("north", "south"), "img", site="south", sites=SITES) == Here(content())
    assert route_run(facts("north"), "img", site="south", sites=SITES) == Across(content(), "north")
    # The source is the site where it was saved, unless that one is away.
    assert route_run(facts("east", "north"), "img", site="south", sites=SITES) == Across(content(), "north")
    away: dict[str, SiteState] = {**SITES, "north": "offline"}
    assert route_run(facts("east", "north"), "img", site="south", sites=away) == Across(content(), "east")
    offline = refused(route_run(facts("north"), "img", site="south", sites=away))
    assert (offline.code, offline.temporary) == ("site_offline", True)


@pytest.mark.parametrize(
    ("image", "site", "code"),
    [
        (None, "south", "not_found"),
        (facts("north", state="saving", content=None), "south", "conflict"),
        (facts("north", state="deleted"), "south", "not_found"),
        (facts("north", state="failed"), "south", "not_found"),
        (facts("north"), "west", "not_found"),
        (facts(), "south", "conflict"),
    ],
)
def test_an_image_that_can_not_run(image: ImageFacts | None, site: str, code: str) -> None:
    assert refused(route_run(image, "img", site=site, sites=SITES)).code == code


def test_an_image_in_use_is_not_deleted() -> None:
    assert check_deletable(facts("north"), "img", now=NOW) is None
    problem = refused(check_deletable(facts("north", used_by=["op-1"]), "img", now=NOW))
    assert (problem.code, "op-1" in problem.message) == ("conflict", True)


def test_a_locked_image_is_not_deleted_before_its_time() -> None:
    """Refused as a whole, before any site is asked: nothing that was begun would be taken back."""
    image = facts("north", keep_until="2026-01-01T00:00:00.001Z", locked_at="north/main")
    problem = refused(check_deletable(image, "img", now=NOW))
    assert (problem.code, problem.field) == ("locked", "image")
    assert "north/main" in problem.message
    assert "2026-01-01T00:00:00.001Z" in problem.message
    assert check_deletable(image, "img", now=NOW + timedelta(seconds=1)) is None


def test_every_site_that_holds_a_copy_is_told_to_forget_it() -> None:
    plan = plan_delete(facts("south", "east"), by=BY)
    # The source keeps the image's manifest, even when its copies are gone.
    assert [step.id for step in plan.steps] == ["forget-east", "forget-north", "forget-south"]


@pytest.mark.parametrize(
    ("app", "saved_at", "number", "expected"),
    [
        ("ideas", "2026-11-20T10:00:00Z", 1, "ideas-2026-11-20"),
        ("ideas", "2026-11-20T10:00:00Z", 2, "ideas-2026-11-20-2"),
        ("Ideas & Co.", "", 1, "ideas-co"),
        ("Ä", "", 1, "found"),
        ("a" * 40, "2026-11-20", 12, "a" * 37 + "-12"),
    ],
)
def test_a_found_image_gets_a_name_that_is_one(app: str, saved_at: str, number: int, expected: str) -> None:
    instance = ImageInstance(
        instance="i", instance_name=app, configuration=InstanceConfiguration(template=SHOP), parts=()
    )
    content = ImageContent(image="x", site="far", level="crash", instances=(instance,), saved_at=saved_at)
    name = catalog.found_name(content, number)
    assert name == expected
    assert check_name(name, field="name") is None
