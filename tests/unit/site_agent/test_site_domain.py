"""What a site decides, and what the progress of its operations means for instances, copies and images."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import commands as cmd
from schemas.ids import new_id
from schemas.problems import Problem, permanent
from schemas.values import DataServiceSpec, ImageContent
from site_agent.domain import plans
from tests.unit.site_agent.world import BY, TEMPLATE, World, deployed, good

BROKEN = permanent("broken", "it is broken")


def failing(action: str, part: str) -> Any:
    def results(this: str, of: str) -> dict[str, Any] | Problem:
        return BROKEN if (this, of) == (action, part) else good(this, of)

    return results


def save(world: World, instance: str) -> tuple[str, str]:
    image = new_id()
    copies = {"db": new_id(), "files": new_id()}
    operation = world.send(cmd.SiteSaveInstance(by=BY, image=image, copies=copies), instance)
    assert isinstance(operation, str)
    return operation, image


def test_deploy_makes_data_before_bindings_before_services_and_needed_services_first() -> None:
    world = World()
    instance = deployed(world)
    order = [f"{action}-{part}" for _, action, part in world.performed]
    assert order.index("provision-db") < order.index("bind-db") < order.index("deploy-api") < order.index("deploy-web")
    state = world.site.instances[instance]
    assert state.state == "running"
    assert state.url == "http://localhost/web"
    assert {one.state for one in state.data_services.values()} == {"bound"}


@pytest.mark.parametrize(
    "step", [("provision", "files"), ("bind", "db"), ("deploy", "api"), ("deploy", "web")], ids="-".join
)
def test_a_deploy_that_fails_leaves_nothing_and_frees_its_name(step: tuple[str, str]) -> None:
    world = World()
    target = new_id()
    operation = world.send(cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE), target)
    assert isinstance(operation, str)
    ended = world.run(operation, failing(*step))
    assert (ended.state, ended.cleanup) == ("failed", "done")
    made = {part for way, action, part in world.performed if (way, action) == ("do", plans.PROVISION)}
    removed = {part for way, action, part in world.performed if (way, action) == ("undo", plans.DEPROVISION)}
    assert made == removed
    assert world.site.instances[target].state == "failed"
    deployed(world)


def test_the_same_command_again_has_one_effect_and_the_same_answer() -> None:
    world = World()
    target, id = new_id(), new_id()
    command = cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE)
    first = world.send(command, target, id=id)
    count = len(world.events)
    assert world.send(command, target, id=id) == first == id
    assert len(world.events) == count
    refused = new_id()
    problem = world.send(command, new_id(), id=refused)
    assert isinstance(problem, Problem)
    assert world.send(command, new_id(), id=refused) == problem


def test_a_name_that_is_taken_is_refused_and_says_by_whom() -> None:
    world = World()
    instance = deployed(world)
    problem = world.send(cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE), new_id())
    assert isinstance(problem, Problem)
    assert (problem.code, problem.field) == ("conflict", "name")
    assert instance in problem.message


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (DataServiceSpec(type="mail"), "data_services.db", "mail"),
        (DataServiceSpec(type="database", broker="oracle"), "data_services.db", "oracle"),
        (DataServiceSpec(type="database", plan="huge"), "data_services.db.plan", "small"),
    ],
)
def test_a_site_that_cannot_serve_a_template_says_which_part_it_lacks(
    data: DataServiceSpec, field: str, words: str
) -> None:
    world = World()
    template = msgspec.structs.replace(TEMPLATE, data_services={**TEMPLATE.data_services, "db": data})
    problem = world.send(cmd.SiteDeployInstance(by=BY, name="shop", template=template), new_id())
    assert isinstance(problem, Problem)
    assert problem.field == field
    assert words in problem.sentence()


def test_a_binding_attribute_that_the_broker_does_not_offer_is_refused() -> None:
    world = World()
    command = cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE, environment={"web": {"X": "${db.colour}"}})
    problem = world.send(command, new_id())
    assert isinstance(problem, Problem)
    assert problem.field == "services.web.environment.X"
    assert "password" in problem.sentence()


def test_a_save_holds_writers_only_while_moments_are_fixed() -> None:
    world = World()
    instance = deployed(world)
    world.performed.clear()
    operation, image = save(world, instance)
    assert world.run(operation, good).state == "succeeded"
    actions = [action for _, action, _ in world.performed]
    last_quiesce = len(actions) - 1 - actions[::-1].index(plans.QUIESCE)
    last_prepare = len(actions) - 1 - actions[::-1].index(plans.PREPARE)
    assert last_quiesce < actions.index(plans.PREPARE)
    assert last_prepare < actions.index(plans.THAW)
    assert actions.index(plans.THAW) < actions.index(plans.COPY)
    content = world.site.images[image].content
    assert content is not None
    assert content.level == "application"
    assert content.writers_wait_seconds > 0
    assert {part.data_service for part in content.instances[0].parts} == {"db", "files"}
    for copy in world.site.images[image].copies.values():
        assert world.states("copy", copy) == ["preparing", "prepared", "copying", "committed"]
        assert world.site.has_copy(copy)


def test_the_level_of_an_image_is_that_of_its_weakest_part() -> None:
    def paused(action: str, part: str) -> dict[str, Any] | Problem:
        return {"how": "pause"} if (action, part) == (plans.QUIESCE, "api") else good(action, part)

    def crashed(action: str, part: str) -> dict[str, Any] | Problem:
        return {"moment": "m", "level": "crash"} if (action, part) == (plans.PREPARE, "db") else paused(action, part)

    world = World()
    instance = deployed(world)
    for results, level in ((paused, "paused"), (crashed, "crash")):
        operation, image = save(world, instance)
        world.run(operation, results)
        content = world.site.images[image].content
        assert content is not None
        assert content.level == level


@pytest.mark.parametrize("action", [plans.QUIESCE, plans.PREPARE, plans.THAW, plans.COPY, plans.COMMIT, plans.RECORD])
def test_a_save_that_fails_anywhere_lets_writers_go_and_leaves_no_copy(action: str) -> None:
    world = World()
    instance = deployed(world)
    world.performed.clear()
    part = {"quiesce": "api", "thaw": "api", "record": "image"}.get(action, "files")
    operation, image = save(world, instance)
    ended = world.run(operation, failing(action, part))
    assert ended.state == "failed"
    held = [part for way, what, part in world.performed if (way, what) == ("do", plans.QUIESCE)]
    let_go = [part for _, what, part in world.performed if what == plans.THAW]
    assert set(held) <= set(let_go)
    assert world.site.images[image].state == "failed"
    assert not world.site.locations
    assert all(copy.state == "failed" for copy in world.site.copies.values())
    assert world.site.instances[instance].state == "running"


def test_stop_start_delete() -> None:
    world = World()
    instance = deployed(world)
    for command, state in (
        (cmd.SiteStopInstance(by=BY), "stopped"),
        (cmd.SiteStartInstance(by=BY), "running"),
        (cmd.SiteDeleteInstance(by=BY), "deleted"),
    ):
        operation = world.send(command, instance)
        assert isinstance(operation, str)
        world.run(operation, good)
        assert world.site.instances[instance].state == state
    assert isinstance(world.send(cmd.SiteStartInstance(by=BY), instance), Problem)
    assert {one.state for one in world.site.instances[instance].data_services.values()} == {"removed"}


def test_one_operation_at_a_time_works_on_an_app() -> None:
    world = World()
    instance = deployed(world)
    save(world, instance)
    problem = world.send(cmd.SiteDeleteInstance(by=BY), instance)
    assert isinstance(problem, Problem)
    assert problem.code == "conflict"


def saved(world: World) -> ImageContent:
    operation, image = save(world, deployed(world))
    world.run(operation, good)
    content = world.site.images[image].content
    assert content is not None
    return content


def test_an_image_runs_where_its_copies_lie_and_only_there() -> None:
    world = World()
    content = saved(world)
    elsewhere = World()
    problem = elsewhere.send(cmd.SiteRunImage(by=BY, name="copy", content=content), new_id())
    assert isinstance(problem, Problem)
    assert "transfer" in problem.sentence()

    fetched = elsewhere.send(cmd.SiteTransferImage(by=BY, content=content, source="north"), content.image)
    assert isinstance(fetched, str)
    elsewhere.run(fetched, good)
    target = new_id()
    operation = elsewhere.send(cmd.SiteRunImage(by=BY, name="copy", content=content), target)
    assert isinstance(operation, str)
    assert elsewhere.run(operation, good).state == "succeeded"
    assert ("do", plans.RESTORE, "db") in elsewhere.performed
    assert elsewhere.site.instances[target].image == content.image


def test_forgetting_an_image_drops_its_copies_here() -> None:
    world = World()
    content = saved(world)
    operation = world.send(cmd.SiteForgetImage(by=BY, content=content), content.image)
    assert isinstance(operation, str)
    world.run(operation, good)
    assert not world.site.locations
    assert {copy.state for copy in world.site.copies.values()} == {"expired"}


def test_a_cancel_of_the_hub_that_overtakes_its_command_keeps_it_from_beginning() -> None:
    world = World()
    operation = new_id()
    assert isinstance(world.send(cmd.SiteCancelOperation(by=BY, parent=new_id()), operation), str)
    late = world.send(cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE), new_id(), id=operation)
    assert isinstance(late, Problem)
    assert "cancelled" in late.message
    assert not world.site.instances


def test_cancel_takes_everything_back() -> None:
    world = World()
    target = new_id()
    operation = world.send(cmd.SiteDeployInstance(by=BY, name="shop", template=TEMPLATE), target)
    assert isinstance(operation, str)
    assert isinstance(world.send(cmd.SiteCancelOperation(by=BY), operation), str)
    ended = world.run(operation, good)
    assert (ended.state, ended.cleanup) == ("cancelled", "done")
    assert isinstance(world.send(cmd.SiteCancelOperation(by=BY), operation), Problem)


def test_a_copy_is_taken_on_top_of_the_newest_one_that_the_repository_holds() -> None:
    world = World()
    instance = deployed(world)
    assert world.site.copy_before(instance, "db", repository="repository") == ""
    copies = []
    for _ in range(2):
        operation, image = save(world, instance)
        world.run(operation, good)
        copies.append(world.site.images[image].copies["db"])
    [place] = {one.repository.partition("/")[2] for one in world.site.locations.values()}
    assert world.site.copy_before(instance, "db", repository=place) == copies[1]
    assert world.site.copy_before(instance, "db", repository="another") == ""
    assert world.site.copy_before(new_id(), "db", repository=place) == ""

    content = world.site.images[image].content
    assert content is not None
    operation_id = world.send(cmd.SiteForgetImage(by=BY, content=content), content.image)
    assert isinstance(operation_id, str)
    world.run(operation_id, good)
    assert world.site.copy_before(instance, "db", repository=place) == copies[0]
