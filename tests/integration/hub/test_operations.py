"""Operations that span sites: run across, delete, cancel - with hubs that die in the middle, and several at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bus.connection import Bus
from bus.events import Conflict, EventStore, NewEvent
from bus.service import Service
from hub.domain import membership
from hub.process import hub
from schemas import events as ev
from schemas import subjects
from schemas.commands import (
    Answer,
    CancelOperation,
    DeleteImage,
    DeleteInstance,
    DeployInstance,
    EditImage,
    RunImage,
    SaveInstance,
    SiteTransferImage,
)
from schemas.envelope import Envelope
from schemas.ids import new_id
from schemas.operations import effect_id
from schemas.problems import CalqueError, conflict, permanent
from schemas.queries import (
    AskGrant,
    CommandQuery,
    GrantView,
    OperationsQuery,
    OperationsView,
    SiteGrant,
    SitesQuery,
    SitesView,
)
from schemas.secrets import Sealed
from schemas.values import TemplateRef
from tests.integration.hub.conftest import Client, HubProcess, Server, hub_settings, until
from tests.integration.hub.fakes import FakeSite, Handled, accepts_only, location

pytestmark = pytest.mark.asyncio(loop_scope="session")

Sites = dict[str, FakeSite]


@pytest_asyncio.fixture(loop_scope="session")
async def hubs(nats: Server, tmp_path: Path) -> AsyncIterator[list[HubProcess]]:
    """Hub processes that a test starts; all are gone afterwards."""
    found: list[HubProcess] = []
    try:
        yield found
    finally:
        for each in found:
            each.kill()


async def start_hub(hubs: list[HubProcess], nats: Server, tmp_path: Path) -> HubProcess:
    process = HubProcess(nats, tmp_path / f"hub-{len(hubs)}-{os.getpid()}")
    hubs.append(process)
    await process.wait_ready()
    return process


async def prepared(client: Client) -> tuple[str, str]:
    """An instance at north and an image of it."""
    await client.apply()
    instance = await client.deploy()
    return instance, await client.save(instance)


async def online(client: Client) -> None:
    async def both() -> bool:
        found = (await client.query("sites", SitesQuery(), SitesView)).sites
        return all(site.state == "online" for site in found)

    await until(both, what="both sites are online")


@pytest.mark.usefixtures("running_hub")
async def test_operations_come_in_pages_newest_first(client: Client, sites: Sites) -> None:
    await client.apply()
    for name in ("one", "two", "three"):
        await client.deploy(name)
    names: list[str] = []
    question = OperationsQuery(limit=2)
    while True:
        page = await client.query("operations", question, OperationsView)
        names += [each.name for each in page.operations]
        if page.next is None:
            break
        question = OperationsQuery(limit=2, after=page.next)
    assert names == ["three", "two", "one"]


@pytest.mark.usefixtures("running_hub")
async def test_what_a_hub_accepted_no_other_hub_rejects(client: Client, sites: Sites) -> None:
    """A hub that decided at the same time, and comes later, finds the place of its rejection taken."""
    _, image = await prepared(client)
    await online(client)
    answers = [
        await client.ask(RunImage(instance=new_id(), name="two", site="south"), image),
        await client.ask(EditImage(comment="before the upgrade"), image),
    ]
    store = EventStore(client.bus, writer=subjects.HUB)
    for answer in answers:
        assert answer.state == "accepted"
        late = NewEvent("command", answer.command, ev.CommandRejected(problem=conflict("image", "late"), kind="late"))
        with pytest.raises(Conflict):
            await store.append([late], expected={("command", answer.command): 0})
    assert (await client.ended(answers[0].command)).state == "succeeded"


@pytest.mark.usefixtures("running_hub")
async def test_an_image_runs_where_its_copies_lie_without_a_transfer(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    answer = await client.ask(RunImage(instance=new_id(), name="two", site="north"), image)
    assert (answer.state, answer.operation, answer.site) == ("accepted", answer.command, "north")
    assert (await client.ended(answer.command)).site == "north"
    app = await client.app("two")
    assert app is not None
    assert (app.image, app.status) == (image, "UP")


@pytest.mark.usefixtures("running_hub")
async def test_an_image_runs_at_another_site_after_its_copies_are_there(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    await online(client)
    answer = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    assert (answer.state, answer.operation, answer.site) == ("accepted", answer.command, None)
    view = await client.ended(answer.command)
    assert view.state == "succeeded", view
    assert [step.step.id for step in view.steps] == ["transfer-south", "run-south"]
    assert all(step.started_at and step.ended_at for step in view.steps)
    assert len(view.children) == 2
    assert sites["south"].verbs() == ["transfer", "run"]
    transfer = sites["south"].came[0]
    assert isinstance(transfer.command, SiteTransferImage)
    assert (transfer.id, transfer.command.source, transfer.command.parent, transfer.command.by.principal) == (
        effect_id(answer.command, "transfer-south", 1),
        "north",
        answer.command,
        "alice",
    )
    assert (await client.image(image)).sites == ("north", "south")
    # Once there, the site can do it alone.
    again = await client.ask(RunImage(instance=new_id(), name="three", site="south"), image)
    assert again.site == "south"


@pytest.mark.usefixtures("running_hub")
async def test_a_child_that_fails_fails_the_run_with_its_problem(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    await online(client)
    problem = permanent("no_space", "the repository is full", field="copy")

    async def fails(handled: Handled) -> None:
        await handled.accept()
        await handled.fail(problem)

    sites["south"].scripts["transfer"] = fails
    answer = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    view = await client.ended(answer.command)
    assert (view.state, view.problem, view.cleanup) == ("failed", problem, "none")
    assert sites["south"].verbs() == ["transfer"]


@pytest.mark.usefixtures("running_hub")
async def test_an_image_whose_holder_is_away_is_refused(
    client: Client, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "STALE_AFTER_SECONDS", 1.5)
    _, image = await prepared(client)
    sites["north"].beating = False
    await online(client)

    async def stale() -> bool:
        app = await client.app("shop")
        return app is not None and app.stale

    await until(stale, what="north is stale")
    app = await client.app("shop")
    assert app is not None
    assert app.status == "UP"
    answer = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    assert answer.problem is not None
    assert (answer.state, answer.problem.code, answer.problem.field) == ("rejected", "site_offline", "image")
    assert "north" in answer.problem.message


@pytest.mark.usefixtures("running_hub")
async def test_an_image_that_is_being_saved_can_not_run(client: Client, sites: Sites) -> None:
    await client.apply()
    instance = await client.deploy()
    sites["north"].scripts["save"] = accepts_only
    image = new_id()
    await client.ask(SaveInstance(image=image, name="golden"), instance)
    answer = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    assert answer.problem is not None
    assert (answer.problem.code, answer.problem.message) == ("conflict", "image golden is still being saved")


@pytest.mark.usefixtures("running_hub")
async def test_cancelling_a_run_cancels_its_child_and_waits_for_its_end(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    await online(client)
    sites["south"].scripts["run"] = accepts_only
    run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    child = effect_id(run.command, "run-south", 1)

    async def child_runs() -> bool:
        return await client.operation(child) is not None

    await until(child_runs, what="the child runs")
    answer = await client.ask(CancelOperation(), run.command)
    assert (answer.state, answer.operation) == ("accepted", run.command)
    view = await client.ended(run.command)
    assert (view.state, view.cleanup) == ("cancelled", "done")
    assert (await client.ended(child)).state == "cancelled"
    late = await client.ask(CancelOperation(), run.command)
    assert late.problem is not None
    assert late.problem.code == "conflict"


@pytest.mark.usefixtures("running_hub")
async def test_cancelling_during_the_transfer_cancels_the_transfer(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    await online(client)
    sites["south"].scripts["transfer"] = accepts_only
    run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    child = effect_id(run.command, "transfer-south", 1)

    async def child_runs() -> bool:
        return await client.operation(child) is not None

    await until(child_runs, what="the child runs")
    await client.ask(CancelOperation(), run.command)
    assert (await client.ended(run.command)).state == "cancelled"
    assert (await client.ended(child)).state == "cancelled"
    assert "run" not in sites["south"].verbs()


@pytest.mark.usefixtures("running_hub")
async def test_a_run_that_succeeded_in_spite_of_the_cancel_is_removed(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    await online(client)
    runs = sites["south"].scripts["run"]
    sites["south"].scripts["run"] = accepts_only

    async def too_late(handled: Handled) -> None:
        (run,) = [each for each in sites["south"].came if each.subject.verb == "run"]
        await run.succeed()

    sites["south"].scripts["cancel"] = too_late
    instance = new_id()
    run = await client.ask(RunImage(instance=instance, name="two", site="south"), image)
    child = effect_id(run.command, "run-south", 1)

    async def child_runs() -> bool:
        return await client.operation(child) is not None

    await until(child_runs, what="the child runs")
    await client.ask(CancelOperation(), run.command)
    view = await client.ended(run.command)
    assert (view.state, view.cleanup) == ("cancelled", "done")
    assert sites["south"].verbs() == ["transfer", "run", "cancel", "delete"]
    assert sites["south"].came[-1].subject.id == instance
    sites["south"].scripts["run"] = runs


@pytest.mark.usefixtures("running_hub")
async def test_deleting_an_image_forgets_its_copies_everywhere_and_frees_its_name(client: Client, sites: Sites) -> None:
    instance, image = await prepared(client)
    await online(client)
    run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    await client.ended(run.command)
    await sites["south"].stop()  # an absent site puts its share off
    answer = await client.ask(DeleteImage(), image)
    assert (answer.state, answer.operation) == ("accepted", answer.command)
    assert (await client.image(image)).state == "deleted"
    assert (await client.ask(SaveInstance(image=new_id(), name="golden"), instance)).state == "accepted"

    async def half_done() -> bool:
        view = await client.operation(answer.command)
        return view is not None and [step.state for step in view.steps] == ["done", "running"]

    await until(half_done, what="north has forgotten")
    refused = await client.ask(CancelOperation(), answer.command)
    assert refused.state == "rejected"
    back = FakeSite(client.bus, "south")
    await back.start()
    try:
        assert (await client.ended(answer.command)).state == "succeeded"
        assert back.verbs() == ["forget"]
    finally:
        await back.stop()
    assert all(part.locations == () for part in (await client.image(image)).parts)
    gone = await client.ask(RunImage(instance=new_id(), name="three", site="north"), image)
    assert gone.problem is not None
    assert gone.problem.code == "not_found"


@pytest.mark.usefixtures("running_hub")
async def test_an_image_in_use_is_not_deleted(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    await online(client)
    sites["south"].scripts["transfer"] = accepts_only
    run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    answer = await client.ask(DeleteImage(), image)
    assert answer.problem is not None
    assert answer.problem.code == "conflict"
    assert run.command in answer.problem.message


@pytest.mark.usefixtures("running_hub")
async def test_a_grant_is_given_for_a_running_transfer_only(client: Client, sites: Sites, bus: Bus) -> None:
    _, image = await prepared(client)
    await online(client)
    copy = (await client.image(image)).parts[0].copy
    announced = ev.SiteAnnounced(version="1", seal_key="ab" * 32, crb_fingerprint="cd" * 32)
    await sites["south"].write(("site", "south", announced))

    async def known() -> bool:
        found = (await client.query("sites", SitesQuery(), SitesView)).sites
        return [site.version for site in found] == ["", "1"]

    await until(known, what="the hub knows south's keys")
    asked: list[SiteGrant] = []

    async def grant(question: SiteGrant, _envelope: Envelope) -> GrantView:
        asked.append(question)
        return GrantView(grant=Sealed(recipient=question.public_key, box=b"sealed"))

    north = Service(bus, name="north", version="1.0.0", description="", source="north")
    north.endpoint("grant", subjects.site_rpc(site="north", operation="grant"), SiteGrant, GrantView, grant)
    await north.start()

    async def ask(site: str, question: AskGrant) -> GrantView:
        subject = subjects.site_ask(site=site, operation="grant")
        return await bus.ask(subject, question, GrantView, source=site, timeout_seconds=60)

    try:
        sites["south"].scripts["transfer"] = accepts_only
        run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
        question = AskGrant(copy=copy, source="north", operation=run.command)
        assert await ask("south", question) == GrantView(grant=Sealed(recipient="ab" * 32, box=b"sealed"))
        assert asked == [SiteGrant(copy=copy, target="south", public_key="ab" * 32, client_fingerprint="cd" * 32)]
        child = AskGrant(copy=copy, source="north", operation=effect_id(run.command, "transfer-south", 1))
        assert (await ask("south", child)).grant.box == b"sealed"
        for site, wrong in (
            ("north", question),
            ("south", AskGrant(copy="other", source="north", operation=run.command)),
            ("south", AskGrant(copy=copy, source="south", operation=run.command)),
            ("south", AskGrant(copy=copy, source="north", operation=new_id())),
        ):
            with pytest.raises(CalqueError) as refused:
                await ask(site, wrong)
            assert refused.value.problem.code == "forbidden"
        await client.ask(CancelOperation(), run.command)
        await client.ended(run.command)
        with pytest.raises(CalqueError) as refused:
            await ask("south", question)
        assert refused.value.problem.code == "forbidden"
        assert len(asked) == 2
    finally:
        await north.stop()


async def test_a_hub_killed_in_the_middle_of_a_run_is_followed_by_another(
    client: Client, sites: Sites, hubs: list[HubProcess], nats: Server, tmp_path: Path
) -> None:
    first = await start_hub(hubs, nats, tmp_path)
    _, image = await prepared(client)
    await online(client)
    begun: list[Handled] = []

    async def hold(handled: Handled) -> None:
        await handled.accept()
        begun.append(handled)

    sites["south"].scripts["transfer"] = hold
    run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    await until(lambda: bool(begun), what="the transfer has begun")
    first.kill()
    await begun[0].succeed()
    await transfers_done(sites["south"], begun[0])
    second = await start_hub(hubs, nats, tmp_path)
    assert (await client.ended(run.command)).state == "succeeded"
    assert sites["south"].verbs() == ["transfer", "run"]
    assert (await client.query("command", CommandQuery(id=run.command), Answer)).operation == run.command
    assert await second.stop() == 0


async def transfers_done(site: FakeSite, handled: Handled) -> None:
    command = handled.command
    assert isinstance(command, SiteTransferImage)
    for each in command.content.instances:
        for part in each.parts:
            await site.write(location(site.name, copy=part.copy, image=command.content.image))


async def test_a_hub_cut_off_between_deciding_and_sending_loses_nothing(
    client: Client, sites: Sites, nats: Server
) -> None:
    """The operation is stored, its command is not sent: another hub finds it and sends it."""
    async with hub(hub_settings(nats)) as running:
        _, image = await prepared(client)
        await online(client)

        async def lost(*_: object) -> None:
            await asyncio.Event().wait()

        running.context.outbound.command = lost  # type: ignore[method-assign, assignment]
        run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    assert sites["south"].verbs() == []
    async with hub(hub_settings(nats)):
        assert (await client.ended(run.command)).state == "succeeded"
        assert sites["south"].verbs() == ["transfer", "run"]


async def test_two_hubs_at_once_do_everything_once(
    client: Client, sites: Sites, hubs: list[HubProcess], nats: Server, tmp_path: Path
) -> None:
    await asyncio.gather(*(start_hub(hubs, nats, tmp_path) for _ in range(2)))
    instance, image = await prepared(client)
    await online(client)
    answers = await asyncio.gather(
        *(client.ask(RunImage(instance=new_id(), name=f"run-{n}", site="south"), image) for n in range(4)),
        *(client.ask(SaveInstance(image=new_id(), name="same"), instance) for _ in range(4)),
    )
    runs, saves = answers[:4], answers[4:]
    for answer in runs:
        assert (await client.ended(answer.command)).state == "succeeded", answer
    assert sorted(answer.state for answer in saves) == ["accepted", "rejected", "rejected", "rejected"]
    assert sites["south"].verbs().count("run") == 4
    deletion = await client.ask(DeleteInstance(), instance)
    await client.ended(deletion.command)
    hubs[0].kill()
    await client.ask(DeployInstance(name="last", site="north", template=TemplateRef(name="shop")), new_id())


async def test_a_command_that_waited_while_no_hub_ran_is_answered(client: Client, sites: Sites, nats: Server) -> None:
    async with hub(hub_settings(nats)):
        await client.apply()
    id, answer = await client.send(
        DeployInstance(name="shop", site="north", template=TemplateRef(name="shop")), new_id()
    )
    async with hub(hub_settings(nats)), asyncio.timeout(60):
        assert (await answer).operation == id


@pytest.mark.usefixtures("running_hub")
async def test_a_transfer_waits_its_turn_behind_another_of_the_same_image(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    await online(client)
    transfers = sites["south"].scripts["transfer"]

    async def busy(handled: Handled) -> None:
        sites["south"].scripts["transfer"] = transfers
        await handled.reject(conflict("image", "another transfer works on this image here", "wait for it"))

    sites["south"].scripts["transfer"] = busy
    run = await client.ask(RunImage(instance=new_id(), name="two", site="south"), image)
    assert (await client.ended(run.command)).state == "succeeded"
    assert [each.id for each in sites["south"].came[:2]] == [
        effect_id(run.command, "transfer-south", attempt) for attempt in (1, 2)
    ]
