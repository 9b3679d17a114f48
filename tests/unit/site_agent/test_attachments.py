"""Data services that were there before: part of an app, copied, bound - and no step ever removes one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import commands as cmd
from schemas import events as ev
from schemas.attachment import check_attachment
from schemas.ids import new_id
from schemas.problems import Problem, permanent
from schemas.values import Attachment, Requester, Template
from site_agent.domain import health, plans, secrets
from site_agent.domain.site import Draft
from tests.unit.site_agent.world import BY, TEMPLATE, World, good

DB = Attachment(url="postgresql://reader@db.example:5432/shop", secret="secret:prod-db")
FILES = Attachment(url="s3://shop-files?endpoint=https://s3.example", secret="secret:prod-db")
REMOVING = {plans.DEPROVISION, plans.PROVISION, plans.RESTORE}


def _world() -> World:
    world = World()
    world._apply([Draft("secret", "prod-db", ev.SecretSet(version=1, by=BY))])
    return world


def _command(**more: Any) -> cmd.SiteDeployInstance:
    return cmd.SiteDeployInstance(**{"by": BY, "name": "shop", "template": TEMPLATE, "attach": {"db": DB}, **more})


def _begun(world: World, command: cmd.SiteDeployInstance) -> tuple[str, str]:
    target = new_id()
    operation = world.send(command, target)
    assert isinstance(operation, str), operation
    return target, operation


def _rejected(world: World, command: cmd.SiteDeployInstance) -> Problem:
    problem = world.send(command, new_id())
    assert isinstance(problem, Problem), problem
    return problem


def _done_with(world: World, part: str) -> set[str]:
    return {action for _, action, about in world.performed if about == part}


def test_one_attached_data_service_beside_one_of_ours_until_the_app_is_deleted() -> None:
    world = _world()
    target, operation = _begun(world, _command())
    assert world.run(operation, good).state == "succeeded"
    instance = world.site.instances[target]
    assert instance.state == "running"
    assert instance.data_services["db"].attached == DB
    assert instance.data_services["files"].attached is None
    provisioned = {
        draft.event.data_service: draft.event.origin
        for draft in world.events
        if isinstance(draft.event, ev.DataServiceProvisioned)
    }
    assert provisioned == {"db": "attached", "files": "provisioned"}

    for command in (cmd.SiteStopInstance(by=BY), cmd.SiteStartInstance(by=BY), cmd.SiteDeleteInstance(by=BY)):
        operation_id = world.send(command, target)
        assert isinstance(operation_id, str)
        assert world.run(operation_id, good).state == "succeeded"
    assert world.site.instances[target].state == "deleted"
    assert world.site.instances[target].data_services["db"].state == "detached"
    assert not REMOVING & _done_with(world, "db")
    assert plans.DEPROVISION in _done_with(world, "files")


def test_a_failed_and_a_cancelled_deployment_let_go_of_it_and_remove_nothing() -> None:
    def failing(action: str, part: str) -> dict[str, Any] | Problem:
        return permanent("cannot_start", "no") if action == plans.DEPLOY else good(action, part)

    world = _world()
    target, operation = _begun(world, _command())
    assert world.run(operation, failing).state == "failed"
    assert world.site.instances[target].cleaned
    assert ("undo", plans.DETACH, "db") in world.performed
    assert not REMOVING & _done_with(world, "db")

    _, operation = _begun(world, _command())
    assert world.send(cmd.SiteCancelOperation(by=BY), operation) != operation
    assert world.run(operation, good).state == "cancelled"
    assert not REMOVING & _done_with(world, "db")


def test_starting_binds_what_is_attached_again_since_its_password_may_have_changed() -> None:
    world = _world()
    target, operation = _begun(world, _command())
    world.run(operation, good)
    stopped = world.send(cmd.SiteStopInstance(by=BY), target)
    assert isinstance(stopped, str)
    world.run(stopped, good)
    world.performed.clear()
    started = world.send(cmd.SiteStartInstance(by=BY), target)
    assert isinstance(started, str)
    world.run(started, good)
    assert world.performed[0] == ("do", plans.BIND, "db")
    assert ("do", plans.BIND, "files") not in world.performed


def test_an_adopted_app_is_saved_without_its_services_and_its_image_deploys_them() -> None:
    world = _world()
    target, operation = _begun(world, _command(attach={"db": DB, "files": FILES}, adopted=True))
    assert world.run(operation, good).state == "succeeded"
    instance = world.site.instances[target]
    assert (instance.state, instance.services, instance.written) == ("running", {}, TEMPLATE)
    assert not {action for _, action, _ in world.performed} & {plans.DEPLOY, plans.PROVISION}
    image = new_id()
    saving = world.send(cmd.SiteSaveInstance(by=BY, image=image, copies={"db": "c1", "files": "c2"}), target)
    assert isinstance(saving, str)
    assert world.run(saving, good).state == "succeeded"
    content = world.site.images[image].content
    assert content is not None
    assert content.level == "crash"
    assert {part.origin for part in content.instances[0].parts} == {"attached"}

    world.performed.clear()
    elsewhere = new_id()
    running = world.send(cmd.SiteRunImage(by=BY, name="two", content=content), elsewhere)
    assert isinstance(running, str)
    assert world.run(running, good).state == "succeeded"
    made = world.site.instances[elsewhere]
    assert {name: one.attached for name, one in made.data_services.items()} == {"db": None, "files": None}
    assert set(made.services) == {"web", "api"}
    assert ("do", plans.RESTORE, "db") in world.performed

    for command in (cmd.SiteStopInstance(by=BY), cmd.SiteStartInstance(by=BY)):
        assert isinstance(world.send(command, target), Problem)
    world.performed.clear()
    deleting = world.send(cmd.SiteDeleteInstance(by=BY), target)
    assert isinstance(deleting, str)
    assert world.run(deleting, good).state == "succeeded"
    assert {action for _, action, _ in world.performed} == {plans.UNBIND, plans.DETACH}


def test_what_can_t_be_attached_says_why() -> None:
    world = _world()
    strange = _rejected(world, _command(attach={"cache": DB}))
    assert strange.field == "attach.cache"
    assert "db, files" in (strange.remedy or "")
    unset = msgspec.structs.replace(DB, secret="secret:other")
    missing = _rejected(world, _command(attach={"db": unset}))
    assert (missing.code, missing.field) == ("secret_not_set", "attach.db.secret")
    planned = _rejected(world, _command(plans={"db": "small"}))
    assert planned.field == "plans.db"
    partly = _rejected(world, _command(adopted=True))
    assert "--attach files=URL" in (partly.remedy or "")
    postgres = world.site.brokers["dsb-postgres"]
    world._apply([Draft("broker", "dsb-postgres", msgspec.structs.replace(postgres, can_attach=False))])
    unable = _rejected(world, _command())
    assert "can attach" in unable.message


def test_a_secret_that_an_app_needs_can_t_be_removed_until_the_app_is_gone() -> None:
    world = _world()
    target, operation = _begun(world, _command())
    world.run(operation, good)
    problem = secrets.why_not_removed(world.site, "prod-db")
    assert problem is not None
    assert "'shop'" in problem.message
    assert secrets.remove_secret(world.site, "prod-db", by=Requester(principal="ann"), id="x") == []
    deleting = world.send(cmd.SiteDeleteInstance(by=BY), target)
    assert isinstance(deleting, str)
    world.run(deleting, good)
    assert secrets.why_not_removed(world.site, "prod-db") is None


def test_an_ill_attached_data_service_degrades_its_app_and_a_well_one_heals_it() -> None:
    world = _world()
    target, operation = _begun(world, _command(attach={"db": DB, "files": FILES}, adopted=True))
    world.run(operation, good)
    ill = ev.DataServiceHealthChanged(data_service="db", healthy=False, message="it does not answer")
    world._apply(health.verdicts(world.site, [(target, ill)]))
    assert world.site.instances[target].state == "degraded"
    degraded = [draft.event for draft in world.events if isinstance(draft.event, ev.InstanceDegraded)]
    assert degraded == [ev.InstanceDegraded(message="db: it does not answer")]
    well = ev.DataServiceHealthChanged(data_service="db", healthy=True)
    world._apply(health.verdicts(world.site, [(target, well)]))
    assert world.site.instances[target].state == "degraded"  # how its app services are is for another watch to say
    world._apply(health.verdicts(world.site, [], seen_well={target}))
    assert world.site.instances[target].state == "running"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@host/db",
        "postgresql://user@host/db?password=hunter2",
        "s3://bucket?secret_key=hunter2",
        "s3://bucket?session-token=hunter2",
        "https://user:@host/hunter2",
        "file:///data#hunter2",
    ],
)
def test_a_url_with_a_password_in_it_is_refused_without_repeating_it(url: str) -> None:
    problem = check_attachment(Attachment(url=url), field="attach.db")
    assert problem is not None
    assert "hunter2" not in problem.sentence()
    assert "calque secret set" in (problem.remedy or "")


@pytest.mark.parametrize("url", ["", "nonsense", "postgresql://host:port/db", "file:relative", "x://" + "y" * 3000])
def test_what_is_no_url_is_refused(url: str) -> None:
    assert check_attachment(Attachment(url=url), field="attach.db") is not None


def test_what_a_template_says_stays_portable() -> None:
    """Where the data is belongs to the deployment: no field of a template can say it."""
    assert not {"url", "attach", "attached", "origin"} & {field.name for field in msgspec.structs.fields(Template)}
