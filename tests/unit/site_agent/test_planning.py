"""A plan says what the command then does, and a command that expects a plan does that or nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import commands as cmd
from schemas import events as ev
from schemas.ids import new_id
from schemas.planning import SitePlan, plan_digest
from schemas.problems import Problem
from schemas.values import Plan
from site_agent.domain import planning
from site_agent.domain.site import Site
from tests.unit.site_agent.world import BY, TEMPLATE, World, deployed, good

DEPLOY = cmd.SiteDeployInstance(
    by=BY, name="shop", template=TEMPLATE, environment={"web": {"URI": "fixed", "NEW": "x"}}
)


def made(site: Site, command: cmd.SiteCommand, target: str, **more: Any) -> SitePlan:
    plan = planning.plan(site, command, target=target, **more)
    assert isinstance(plan, SitePlan), plan
    return plan


def with_plan(world: World, broker: str, offered: Plan) -> None:
    """A broker offers another plan from now on."""
    registered = world.site.brokers[f"dsb-{broker}"]
    world.site.brokers[f"dsb-{broker}"] = msgspec.structs.replace(registered, plans=(offered,))


def test_the_steps_that_are_shown_are_those_that_are_then_taken() -> None:
    world = World()
    target = new_id()
    shown = made(world.site, DEPLOY, target)
    operation = world.send(DEPLOY, target)
    assert isinstance(operation, str)
    assert world.site.operations[operation].accepted.steps == shown.steps
    assert {(one.name, one.broker, one.plan, one.does) for one in shown.data_services} == {
        ("db", "postgres", "small", "provision"),
        ("files", "s3", "small", "provision"),
    }
    assert {(one.name, one.platform, one.does) for one in shown.services} == {
        ("web", "process", "deploy"),
        ("api", "process", "deploy"),
    }


def test_only_variables_that_become_others_are_changes() -> None:
    shown = made(World().site, DEPLOY, new_id())
    assert [(one.service, one.name, one.was, one.value) for one in shown.changes] == [
        ("web", "NEW", None, "x"),
        ("web", "URI", "${db.uri}", "fixed"),
    ]


def test_the_digest_is_the_same_for_every_new_instance_and_another_when_a_price_changes() -> None:
    world = World()
    digest = plan_digest(made(world.site, DEPLOY, new_id()))
    assert plan_digest(made(world.site, DEPLOY, new_id())) == digest
    with_plan(world, "s3", Plan(name="small", monthly_cost=12.5))
    assert plan_digest(made(world.site, DEPLOY, new_id())) != digest


def test_a_command_does_what_it_expects_or_nothing() -> None:
    world = World()
    target = new_id()
    digest = plan_digest(made(world.site, DEPLOY, target))
    expecting = msgspec.structs.replace(DEPLOY, expected_plan=digest)
    decided = planning.decide_as_planned(world.site, expecting, id=new_id(), target=target)
    assert not isinstance(decided, Problem)
    with_plan(world, "postgres", Plan(name="small", limits={"size": "1 GiB"}))
    refused = planning.decide_as_planned(world.site, expecting, id=new_id(), target=target)
    assert isinstance(refused, Problem)
    assert (refused.code, refused.field) == ("conflict", "expected_plan")


def test_planning_changes_nothing() -> None:
    world = World()
    before = len(world.events), dict(world.site.instances), dict(world.site.operations)
    made(world.site, DEPLOY, new_id())
    assert (len(world.events), dict(world.site.instances), dict(world.site.operations)) == before


@pytest.mark.parametrize(
    ("command", "does"),
    [
        (cmd.SiteStopInstance(by=BY), ({"stop"}, {"keep"})),
        (cmd.SiteDeleteInstance(by=BY), ({"remove"}, {"deprovision"})),
        (cmd.SiteSaveInstance(by=BY, image="i", copies={"db": "a", "files": "b"}), ({"quiesce"}, {"copy"})),
    ],
    ids=["stop", "delete", "save"],
)
def test_what_happens_to_each_part_is_said(command: cmd.SiteCommand, does: tuple[set[str], set[str]]) -> None:
    world = World()
    shown = made(world.site, command, deployed(world))
    assert {one.does for one in shown.services} == does[0]
    assert {one.does for one in shown.data_services} == does[1]


def test_an_image_whose_copies_are_on_their_way_is_planned_as_if_they_were_here() -> None:
    world = World()
    instance = deployed(world)
    image, copies = new_id(), {"db": new_id(), "files": new_id()}
    saved = world.send(cmd.SiteSaveInstance(by=BY, image=image, copies=copies), instance)
    assert isinstance(saved, str)
    world.run(saved, good)
    content = world.site.images[image].content
    assert content is not None
    other = World()
    other.site.announced = ev.SiteAnnounced(version="1", seal_key="00")
    run = cmd.SiteRunImage(by=BY, name="again", content=content)
    refused = planning.plan(other.site, run, target=new_id())
    assert isinstance(refused, list)
    shown = made(other.site, run, new_id(), arriving=copies.values())
    assert {one.copy: one.does for one in shown.data_services} == dict.fromkeys(copies.values(), "restore")
    assert {one.bytes for one in shown.data_services} == {10}
    assert not other.site.locations


def test_all_that_a_site_lacks_is_told_at_once() -> None:
    world = World()
    del world.site.brokers["dsb-s3"], world.site.brokers["psb-process"]
    lacks = planning.plan(world.site, DEPLOY, target=new_id())
    assert isinstance(lacks, list)
    assert {one.field for one in lacks} == {
        "data_services.files",
        "services.web.artifact",
        "services.api.artifact",
    }
