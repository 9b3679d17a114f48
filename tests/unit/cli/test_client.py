"""The client SDK against a real NATS server and a hub by script."""

from __future__ import annotations

import asyncio
import json

import pytest
from nacl.public import PublicKey, SealedBox

from hub.client import (
    Client,
    ConflictError,
    Context,
    HubUnreachableError,
    InvalidError,
    NotFoundError,
    OperationFailedError,
    Snapshot,
    WaitTimedOutError,
)
from hub.client import client as client_module
from hub.client.client import unseen
from hub.client.history import EventFilter
from hub.client.readiness import sites_ready
from hub.client.started import derived_id
from schemas import queries
from schemas.commands import Answer, DeployInstance
from schemas.envelope import Envelope, parse_timestamp, unwrap
from schemas.events import CopyCommitted, SiteOnline
from schemas.ids import new_id
from schemas.operations import Step
from schemas.problems import conflict, invalid, permanent
from schemas.secrets import Sealed
from schemas.signals import LogLine, Progress
from schemas.values import CopySummary, TemplateRef
from tests.unit.cli.scripted import ScriptedHub, app, operation

TEMPLATE = TemplateRef(name="hackathon")


async def test_a_command_is_an_envelope_on_its_subject_and_the_answer_comes_to_the_inbox(
    hub: ScriptedHub, client: Client
) -> None:
    started = await client.deploy(TEMPLATE, name="ideas", site="north", plans={"ideas": "small"})
    [(subject, envelope)] = hub.received
    assert subject == f"calque.cmd.hub.tester.instance.{started.target}.deploy"
    assert started.command == started.operation == envelope.id
    assert unwrap(envelope, DeployInstance).plans == {"ideas": "small"}
    assert envelope.source == "tester"
    assert envelope.expirytime is not None
    assert parse_timestamp(envelope.expirytime) > parse_timestamp(envelope.time)


async def test_a_lost_answer_is_asked_for(hub: ScriptedHub, client: Client) -> None:
    async def keep_silent(envelope: Envelope) -> None:
        hub.answers[envelope.id] = Answer(command=envelope.id, state="accepted", operation=envelope.id)

    hub.decide = keep_silent
    started = await client.deploy(TEMPLATE, name="ideas", site="north")
    assert started.operation == started.command
    assert len(hub.received) == 1


async def test_a_command_that_nobody_took_is_sent_again_with_the_same_id(
    hub: ScriptedHub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.client.commands._ANSWER_SECONDS", 0.2)

    async def take_the_third(envelope: Envelope) -> Answer | None:
        if len(hub.received) < 3:
            return None
        return Answer(command=envelope.id, state="accepted", operation=envelope.id)

    hub.decide = take_the_third
    started = await client.deploy(TEMPLATE, name="ideas", site="north")
    assert {envelope.id for _, envelope in hub.received} == {started.command}
    assert len(hub.received) == 3


async def test_a_verb_repeated_with_its_command_id_means_the_same_thing(hub: ScriptedHub, client: Client) -> None:
    id = new_id()
    first = await client.deploy(TEMPLATE, name="ideas", site="north", command=id)
    second = await client.deploy(TEMPLATE, name="ideas", site="north", command=id)
    assert first == second
    assert len({subject for subject, _ in hub.received}) == 1
    assert first.target == derived_id(id, "instance")


async def test_a_rejection_is_raised_as_what_it_is(hub: ScriptedHub, client: Client) -> None:
    async def reject(envelope: Envelope) -> Answer:
        problem = conflict("name", "'ideas' is taken", "choose another")
        return Answer(command=envelope.id, state="rejected", problem=problem)

    hub.decide = reject
    with pytest.raises(ConflictError, match="name: 'ideas' is taken; choose another") as caught:
        await client.deploy(TEMPLATE, name="ideas", site="north")
    assert caught.value.correlation == hub.received[0][1].id


async def test_a_queued_command_says_which_site_keeps_silent(
    hub: ScriptedHub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.client.commands._QUEUED_SECONDS", 0.2)

    async def queue(envelope: Envelope) -> Answer:
        return Answer(command=envelope.id, state="queued", site="north")

    hub.decide = queue
    started = await client.deploy(TEMPLATE, name="ideas", site="north")
    assert started.queued == "north"
    assert started.operation == started.command


async def test_a_queued_command_that_the_site_takes_in_time_is_accepted(hub: ScriptedHub, client: Client) -> None:
    async def queue(envelope: Envelope) -> Answer:
        await hub.answer(envelope, Answer(command=envelope.id, state="queued", site="north"))
        return Answer(command=envelope.id, state="accepted", operation=envelope.id)

    hub.decide = queue
    assert (await client.deploy(TEMPLATE, name="ideas", site="north")).queued is None


async def test_without_a_hub_the_error_says_so_in_time(cli_nats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "COMMAND_SECONDS", 0.5)
    async with await Client.connect(
        Context(servers=(cli_nats,), principal="tester", jetstream_prefix="$JS.API")
    ) as client:
        with pytest.raises(HubUnreachableError):
            await client.deploy(TEMPLATE, name="ideas", site="north")
        client._query_seconds = 0.3
        with pytest.raises(HubUnreachableError):
            await client.status()


async def test_no_server_is_a_hub_that_cannot_be_reached() -> None:
    with pytest.raises(HubUnreachableError, match="calque up"):
        await Client.connect(Context(servers=("nats://127.0.0.1:9",), principal="x"), deadline_seconds=0.5)


async def test_a_name_that_is_none_is_refused_before_anything_is_sent(hub: ScriptedHub, client: Client) -> None:
    with pytest.raises(InvalidError, match="name: 'Bad Name'"):
        await client.deploy(TEMPLATE, name="Bad Name", site="north")
    assert hub.received == []


async def test_a_name_at_two_sites_is_ambiguous_until_one_is_chosen(hub: ScriptedHub, client: Client) -> None:
    apps = (app("ideas"), app("ideas", site="south"), app("ideas", site="south", state="deleted"))

    def answer(question: object) -> queries.AppsView:
        assert isinstance(question, queries.AppsQuery)
        return queries.AppsView(
            apps=tuple(
                each
                for each in apps
                if question.name in (each.name, each.id)
                and question.site in (None, each.site)
                and (question.all or each.state != "deleted")
            )
        )

    hub.replies["apps"] = answer
    with pytest.raises(ConflictError, match=r"2 apps: north .*--site"):
        await client.app("ideas")
    assert (await client.app("ideas", site="south")).id == apps[1].id
    assert (await client.app(apps[2].id)).state == "deleted"
    with pytest.raises(NotFoundError, match="no app 'other'"):
        await client.app("other")


async def test_wait_ends_at_success_and_sees_steps_and_bytes(hub: ScriptedHub, client: Client) -> None:
    id = new_id()
    step = queries.StepView(step=Step(id="copy-ideas", action="copy", part="ideas"), state="running")
    looks = 0

    def answer(_: object) -> queries.OperationsView:
        nonlocal looks
        looks += 1
        if looks < 3:
            return queries.OperationsView(operations=())
        state = "running" if looks < 6 else "succeeded"
        return queries.OperationsView(operations=(operation(id, state, steps=(step,)),))

    hub.answers[id] = Answer(command=id, state="accepted", operation=id)
    hub.replies["operations"] = answer
    seen: list[tuple[str, ...]] = []
    told = asyncio.Event()

    def observe(snapshot: Snapshot) -> None:
        seen.append(tuple(str(rate.progress.done) for rate in snapshot.parts.values()))
        told.set()

    async def signal() -> None:
        await told.wait()
        for done in (10, 20):
            progress = Progress(operation=id, step="copy-ideas", part="ideas", done=done, total=100)
            await hub.say(f"calque.progress.north.{id}", progress)
            await hub.say("calque.progress.north.other", Progress(operation="other", step="s", part="p", done=1))

    telling = asyncio.create_task(signal())
    view = await client.wait(id, timeout=60, observer=observe)
    await telling
    assert view.state == "succeeded"
    assert ("20",) in seen


async def test_wait_ends_at_failure_too(hub: ScriptedHub, client: Client) -> None:
    id = new_id()
    failed = operation(id, "failed", problem=permanent("engine", "the database is gone"), cleanup="done")
    hub.replies["operations"] = lambda _: queries.OperationsView(operations=(failed,))
    with pytest.raises(OperationFailedError, match="the database is gone") as caught:
        await client.wait(id, timeout=60)
    assert caught.value.view.cleanup == "done"


async def test_wait_stops_at_its_timeout_and_says_how_to_come_back(hub: ScriptedHub, client: Client) -> None:
    id = new_id()
    hub.replies["operations"] = lambda _: queries.OperationsView(operations=(operation(id, "running"),))
    with pytest.raises(WaitTimedOutError, match=f"calque operation wait {id}"):
        await client.wait(id, timeout=0.3)


async def test_wait_for_what_was_rejected_or_never_was(
    hub: ScriptedHub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.replies["operations"] = lambda _: queries.OperationsView(operations=())
    hub.answers["x"] = Answer(command="x", state="rejected", problem=invalid("site", "no such site"))
    with pytest.raises(InvalidError, match="no such site"):
        await client.wait("x", timeout=60)
    monkeypatch.setattr("hub.client.watching._APPEAR_SECONDS", 0.1)
    with pytest.raises(NotFoundError, match="no operation 'y'"):
        await client.wait("y", timeout=60)


async def test_the_secrets_of_a_binding_come_sealed(hub: ScriptedHub, client: Client) -> None:
    wires: list[bytes] = []

    def seal(question: object) -> queries.BindingView:
        assert isinstance(question, queries.BindingQuery)
        box = SealedBox(PublicKey(bytes.fromhex(question.public_key))).encrypt(
            json.dumps({"password": "s3cret"}).encode()
        )
        wires.append(box)
        return queries.BindingView(attributes={"host": "h"}, secrets=Sealed(recipient=question.public_key, box=box))

    hub.replies["apps"] = lambda _: queries.AppsView(apps=(app("ideas"),))
    hub.replies["binding"] = seal
    binding = await client.binding("ideas", "ideas")
    assert binding.attributes == {"host": "h"}
    assert binding.secrets["password"].value == "s3cret"
    assert "s3cret" not in repr(binding)
    assert b"s3cret" not in wires[0]


async def test_events_from_any_point_and_on(hub: ScriptedHub, client: Client) -> None:
    summary = CopySummary(copy="c1", merkle_root="", manifest_digest="", size=1, stored=1)
    for number in range(5):
        await hub.record(f"calque.evt.hub.membership.s{number}.online", SiteOnline(), source="hub")
    await hub.record(
        "calque.evt.north.copy.c1.committed", CopyCommitted(repository="r", summary=summary), source="north"
    )
    assert [event.sequence async for event in client.events()] == [1, 2, 3, 4, 5, 6]
    assert [event.sequence async for event in client.events(after=4)] == [5, 6]
    assert [event.sequence async for event in client.events(after=6)] == []
    wanted = EventFilter(site="north", aggregate="copy/c1", type="copy.committed")
    assert [event.sequence async for event in client.events(wanted=wanted)] == [6]

    following = client.events(follow=True)
    coming = asyncio.ensure_future(anext(following))
    for number in range(200):
        await hub.record(f"calque.evt.hub.membership.t{number}.online", SiteOnline(), source="hub")
        done, _ = await asyncio.wait({coming}, timeout=0.05)
        if done:
            break
    assert coming.result().sequence > 6


async def test_logs_are_followed(hub: ScriptedHub, client: Client) -> None:
    found = app("ideas")
    hub.replies["apps"] = lambda _: queries.AppsView(apps=(found,))
    hub.replies["logs"] = lambda _: queries.LogsView(site="north", instance=found.id, service="web", lines=("one",))
    lines = client.follow_logs("ideas")
    assert await anext(lines) == "one"
    await hub.say(f"calque.log.north.{found.id}.web", LogLine(instance=found.id, service="web", line="two"))
    assert await asyncio.wait_for(anext(lines), 60) == "two"


async def test_a_started_stack_is_ready_when_the_hub_knows_every_broker(hub: ScriptedHub, client: Client) -> None:
    looks = 0

    def brokers(_: object) -> queries.BrokersView:
        nonlocal looks
        looks += 1
        there = ("postgres", "s3") if looks > 2 else ("s3",)
        views = (queries.BrokerView(site="north", kind="dsb", name=name, state="registered") for name in there)
        return queries.BrokersView(brokers=tuple(views))

    hub.replies["sites"] = lambda _: queries.SitesView(sites=(queries.SiteView(name="north", state="online"),))
    hub.replies["brokers"] = brokers
    await sites_ready(client, sites=["north"], brokers=["dsb-postgres", "dsb-s3"], timeout_seconds=60)
    assert looks > 2
    with pytest.raises(WaitTimedOutError, match="south/dsb-s3"):
        await sites_ready(client, sites=["north", "south"], brokers=["dsb-s3"], timeout_seconds=0.2)


def test_followed_lines_are_told_once() -> None:
    assert list(unseen(["a", "b", "c"], ["b", "c", "d"])) == ["d"]
    assert list(unseen(["a", "b"], ["c"])) == ["c"]
    assert list(unseen([], ["c"])) == ["c"]
    assert list(unseen(["x"], [])) == []
