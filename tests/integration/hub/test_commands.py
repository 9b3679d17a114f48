"""What a client sees of the hub, with sites that are scripted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from bus.jetstream import JetStream
from schemas import events as ev
from schemas.commands import (
    Answer,
    CancelOperation,
    DeleteImage,
    DeleteInstance,
    DeployInstance,
    RunImage,
    SaveInstance,
    SiteDeployInstance,
    StopInstance,
)
from schemas.envelope import timestamp
from schemas.ids import new_id
from schemas.problems import CalqueError, conflict, permanent
from schemas.queries import BrokersQuery, BrokersView, CommandQuery, SitesQuery, SitesView
from schemas.values import TemplateRef
from tests.integration.hub.conftest import SHOP, SITES, Client, until
from tests.integration.hub.fakes import FakeSite, Handled, accepts_only, ignores

pytestmark = [pytest.mark.usefixtures("running_hub"), pytest.mark.asyncio(loop_scope="session")]

Sites = dict[str, FakeSite]
REF = TemplateRef(name="shop")


async def test_a_template_is_set_once(client: Client) -> None:
    first = await client.apply()
    assert (first.state, first.operation) == ("accepted", None)
    assert (await client.apply()).state == "accepted"
    other = await client.apply(msgspec.structs.replace(SHOP, description="other"))
    assert other.problem is not None
    assert (other.state, other.problem.code, other.problem.field) == ("rejected", "conflict", "version")
    assert "new version" in str(other.problem.remedy)


async def test_a_template_that_no_event_can_hold_is_rejected(client: Client) -> None:
    answer = await client.apply(msgspec.structs.replace(SHOP, description="x" * 70_000))
    assert answer.problem is not None
    assert (answer.state, answer.problem.code, answer.problem.field) == ("rejected", "invalid", "template.description")


async def test_a_deployment_is_passed_on_whole_and_answered_with_the_users_command_id(
    client: Client, sites: Sites
) -> None:
    await client.apply()
    instance, id = new_id(), new_id()
    answer = await client.ask(DeployInstance(name="shop", site="north", template=REF), instance, id=id)
    assert answer == Answer(command=id, state="accepted", operation=id, site="north")
    (came,) = sites["north"].came
    assert (came.id, came.subject.id, came.subject.principal) == (id, instance, "alice")
    assert isinstance(came.command, SiteDeployInstance)
    assert came.command.template == SHOP
    assert came.command.by.principal == "alice"
    assert sites["south"].came == []
    await client.ended(id)
    app = await client.app("shop")
    assert app is not None
    assert (app.id, app.state, app.status, app.stale) == (instance, "running", "UP", False)


async def test_the_same_command_again_has_the_same_answer_and_no_second_effect(client: Client, sites: Sites) -> None:
    await client.apply()
    instance, id = new_id(), new_id()
    command = DeployInstance(name="shop", site="north", template=REF)
    first = await client.ask(command, instance, id=id)
    again = [await client.ask(command, instance, id=id) for _ in range(3)]
    assert {(each.state, each.operation) for each in (first, *again)} == {("accepted", id)}
    assert sites["north"].verbs() == ["deploy"]
    await client.ended(id)
    gone = await client.ask(DeleteInstance(), instance)
    await client.ended(gone.command)
    assert (await client.ask(command, instance, id=id)).state == "accepted"
    repeated = await client.query("command", CommandQuery(id=id), Answer)
    assert (repeated.state, repeated.operation) == ("accepted", id)


async def test_a_rejection_is_remembered(client: Client, sites: Sites) -> None:
    instance, id = new_id(), new_id()
    command = DeployInstance(name="shop", site="north", template=REF)
    first = await client.ask(command, instance, id=id)
    assert first.problem is not None
    assert (first.problem.code, first.problem.field) == ("not_found", "template.name")
    await client.apply()
    assert await client.ask(command, instance, id=id) == first
    assert await client.query("command", CommandQuery(id=id), Answer) == first
    assert (await client.ask(command, instance)).state == "accepted"


@pytest.mark.parametrize(
    ("command", "code", "field"),
    [
        (DeployInstance(name="shop", site="west", template=REF), "not_found", "site"),
        (DeployInstance(name="Shop!", site="north", template=REF), "invalid", "name"),
        (
            DeployInstance(name="shop", site="north", template=TemplateRef(name="shop", version="9")),
            "not_found",
            "template.version",
        ),
        (
            DeployInstance(name="shop", site="north", template=REF, environment={"wep": {"A": "1"}}),
            "invalid",
            "environment.wep",
        ),
        (StopInstance(), "not_found", "instance"),
        (SaveInstance(image="i", name="golden"), "not_found", "instance"),
        (RunImage(instance="i", name="two", site="south"), "not_found", "image"),
        (DeleteImage(), "not_found", "image"),
        (CancelOperation(), "not_found", "operation"),
    ],
    ids=lambda value: getattr(value, "TYPE", value),
)
async def test_what_does_not_exist_or_fit_is_named(client: Client, command: object, code: str, field: str) -> None:
    await client.apply()
    answer = await client.ask(command, new_id())  # type: ignore[arg-type]
    assert answer.problem is not None
    assert (answer.state, answer.problem.code, answer.problem.field) == ("rejected", code, field)
    assert answer.problem.remedy


async def test_an_unknown_site_is_answered_with_those_that_there_are(client: Client) -> None:
    await client.apply()
    answer = await client.ask(DeployInstance(name="shop", site="west", template=REF), new_id())
    assert answer.problem is not None
    assert "north, south" in answer.problem.sentence()


async def test_an_expired_command_is_rejected(client: Client) -> None:
    past = timestamp(datetime.now(UTC) - timedelta(seconds=1))
    answer = await client.ask(StopInstance(), new_id(), expirytime=past)
    assert answer.problem is not None
    assert answer.problem.code == "expired"


async def test_a_site_that_lacks_a_broker_is_refused_early(client: Client, sites: Sites) -> None:
    await client.apply()
    broker = ev.BrokerRegistered(kind="dsb", name="postgres", version="1", types=("database",))
    platform = ev.BrokerRegistered(kind="psb", name="process", version="1", types=("process",))
    await sites["north"].write(("broker", "dsb-postgres", broker), ("broker", "psb-process", platform))

    async def registered() -> bool:
        return len((await client.query("brokers", BrokersQuery(site="north"), BrokersView)).brokers) == 2

    await until(registered, what="the brokers are registered")
    answer = await client.ask(DeployInstance(name="shop", site="north", template=REF), new_id())
    assert answer.problem is not None
    assert answer.problem.field == "data_services.docs"
    assert "objectstore" in answer.problem.sentence()
    assert "postgres (database)" in answer.problem.sentence()


async def test_the_sites_rejection_is_the_answer(client: Client, sites: Sites) -> None:
    await client.apply()
    problem = conflict("name", "taken", "choose another")

    async def rejects(handled: Handled) -> None:
        await handled.reject(problem)

    sites["north"].scripts["deploy"] = rejects
    answer = await client.ask(DeployInstance(name="shop", site="north", template=REF), new_id())
    assert (answer.state, answer.problem, answer.site) == ("rejected", problem, "north")
    assert (await client.query("command", CommandQuery(id=answer.command), Answer)).problem == problem


async def test_a_name_belongs_to_one_image(client: Client, sites: Sites) -> None:
    await client.apply()
    instance = await client.deploy()
    image = await client.save(instance, "golden")
    answer = await client.ask(SaveInstance(image=new_id(), name="golden"), instance)
    assert answer.problem is not None
    assert (answer.problem.code, answer.problem.field) == ("conflict", "name")
    assert image in answer.problem.message
    view = await client.image(image)
    assert (view.name, view.state, view.sites, len(view.parts)) == ("golden", "saved", ("north",), 2)


async def test_a_save_that_its_site_has_not_taken_up_is_queued(client: Client, sites: Sites) -> None:
    await client.apply()
    instance = await client.deploy()
    sites["north"].scripts["save"] = ignores
    command, id = SaveInstance(image=new_id(), name="golden"), new_id()
    for _ in range(2):
        await client.send(command, instance, id=id)

    async def came() -> bool:
        return "save" in sites["north"].verbs()

    await until(came, what="the save has come")

    async def entered() -> bool:
        return [each.id for each in await client.images()] == [command.image]

    await until(entered, what="the hub knows of the save")
    assert (await client.image(command.image)).state == "saving"
    assert (await client.query("command", CommandQuery(id=id), Answer)).state == "queued"


async def test_a_name_is_free_again_when_the_site_rejects_the_save(client: Client, sites: Sites) -> None:
    await client.apply()
    instance = await client.deploy()
    good = sites["north"].scripts["save"]

    async def rejects(handled: Handled) -> None:
        await handled.reject(conflict("app", "busy"))

    sites["north"].scripts["save"] = rejects
    image = new_id()
    answer = await client.ask(SaveInstance(image=image, name="golden"), instance)
    assert answer.state == "rejected"

    async def withdrawn() -> bool:
        return (await client.image(image)).state == "failed"

    await until(withdrawn, what="the entry is withdrawn")
    sites["north"].scripts["save"] = good
    assert (await client.ask(SaveInstance(image=new_id(), name="golden"), instance)).state == "accepted"


async def test_a_name_is_free_again_when_the_save_fails(client: Client, sites: Sites) -> None:
    await client.apply()
    instance = await client.deploy()
    good = sites["north"].scripts["save"]
    problem = permanent("broker_lost", "postgres died")

    async def fails(handled: Handled) -> None:
        await handled.accept()
        failed = ev.ImageFailed(problem=problem)
        await handled.fail(problem, ("image", handled.command.image, failed))  # type: ignore[attr-defined]

    sites["north"].scripts["save"] = fails
    image = new_id()
    answer = await client.ask(SaveInstance(image=image, name="golden"), instance)
    assert answer.state == "accepted"
    view = await client.ended(answer.command)
    assert (view.state, view.problem) == ("failed", problem)

    async def withdrawn() -> bool:
        return (await client.image(image)).state == "failed"

    await until(withdrawn, what="the entry is withdrawn")
    run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    assert run.problem is not None
    assert run.problem.code == "not_found"
    sites["north"].scripts["save"] = good

    async def free() -> bool:
        return (await client.ask(SaveInstance(image=new_id(), name="golden"), instance)).state == "accepted"

    await until(free, what="the name is free")


async def test_a_cancel_of_a_site_operation_is_passed_on(client: Client, sites: Sites) -> None:
    await client.apply()
    sites["north"].scripts["deploy"] = accepts_only
    deploy = await client.ask(DeployInstance(name="shop", site="north", template=REF), new_id())
    answer = await client.ask(CancelOperation(), deploy.command)
    assert (answer.state, answer.operation) == ("accepted", deploy.command)
    assert (await client.ended(deploy.command)).state == "cancelled"
    again = await client.ask(CancelOperation(), deploy.command)
    assert again.problem is not None
    assert again.problem.code == "conflict"


async def test_what_is_no_command_goes_to_the_dead_letters(client: Client) -> None:
    js = JetStream(client.bus)
    await js.publish("calque.cmd.hub.alice.instance.x.stop", b"{not json", headers={"Nats-Msg-Id": "broken"})

    async def buried() -> bool:
        return await js.last_sequence("DLQ") == 1

    await until(buried, what="the message is a dead letter")
    assert (await client.apply()).state == "accepted"


async def test_sites_are_online_while_they_beat(client: Client, sites: Sites) -> None:
    async def online() -> bool:
        found = (await client.query("sites", SitesQuery(), SitesView)).sites
        return [(site.name, site.state) for site in found] == [(name, "online") for name in SITES]

    await until(online, what="both sites are online")


async def test_queries_name_the_field_at_fault(client: Client) -> None:
    with pytest.raises(CalqueError) as refused:
        await client.query("command", CommandQuery(id="nothing"), Answer)
    assert (refused.value.problem.code, refused.value.problem.field) == ("not_found", "id")


async def test_a_command_sent_five_times_at_once_has_one_effect(client: Client, sites: Sites) -> None:
    await client.apply()
    instance = await client.deploy()
    image = await client.save(instance)
    id = new_id()
    sent = [await client.send(DeleteImage(), image, id=id) for _ in range(5)]
    answers = await asyncio.gather(*(answer for _, answer in sent))
    assert {(each.state, each.operation) for each in answers} == {("accepted", id)}
    assert (await client.ended(id)).state == "succeeded"
    assert sites["north"].verbs().count("forget") == 1


async def test_many_commands_at_once_are_each_answered(client: Client, sites: Sites) -> None:
    await client.apply()
    commands = [DeployInstance(name=f"shop-{number}", site=SITES[number % 2], template=REF) for number in range(40)]
    answers = await asyncio.gather(*(client.ask(command, new_id()) for command in commands))
    assert {answer.state for answer in answers} == {"accepted"}
