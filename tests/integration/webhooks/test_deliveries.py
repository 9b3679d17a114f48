"""Deliveries as receivers and those who watch them see them."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime

import pytest
from aiohttp import web

from hub.client.client import Client
from hub.client.errors import ConflictError, InvalidError, NotFoundError
from schemas.envelope import timestamp
from schemas.values import Artifact, ServiceSpec, Template
from schemas.webhooks import StartAt, WebhookSpec
from tests.integration.hub.conftest import until
from tests.integration.webhooks.conftest import Process
from tests.receiver import receiving, signed_by

TEMPLATES = ("template.applied",)


async def apply(client: Client, *names: str) -> None:
    """Make one event each."""
    for name in names:
        spec = ServiceSpec(artifact=Artifact(directory="/srv/x", command=("run",)))
        await client.apply_template(Template(name=name, version="1", services={"web": spec}))


def names(receiver_events: list[dict[str, object]]) -> list[str]:
    return [str(event["data"]["template"]["name"]) for event in receiver_events]  # type: ignore[index]


async def test_an_event_arrives_signed_and_as_it_was_recorded(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        await client.webhooks.add("all", WebhookSpec(url=receiver.url, types=TEMPLATES))
        secret = (await client.webhooks.secret("all")).value
        await apply(client, "shop")
        await until(lambda: bool(receiver.got), what="the event arrives")
        [got] = receiver.got
        assert got.headers["Content-Type"] == "application/cloudevents+json"
        assert (got.event["specversion"], got.event["type"]) == ("1.0", "calque.event.template.applied.v1")
        assert got.id == got.event["id"]
        assert names([got.event]) == ["shop"]
        assert secret.startswith("whsec_")
        assert signed_by(secret, got)
        assert not signed_by("whsec_" + "A" * 43 + "=", got)


async def test_only_what_is_wanted_is_sent_and_in_order(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        await client.webhooks.add("templates", WebhookSpec(url=receiver.url, types=TEMPLATES))
        await client.webhooks.add("other", WebhookSpec(url=receiver.url, sites=("north",)))
        await client.webhooks.add("third", WebhookSpec(url=receiver.url, types=("*.paused",)))
        await apply(client, *(f"shop-{number}" for number in range(20)))
        await client.webhooks.pause("other")
        await until(lambda: len(receiver.got) == 21, what="all arrive")
        applied = [got.event for got in receiver.got if got.type.endswith("applied.v1")]
        assert names(applied) == [f"shop-{number}" for number in range(20)]
        assert receiver.types.count("webhook.paused") == 1


async def test_a_failed_event_is_tried_again_and_the_next_one_does_not_wait(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        receiver.answers.extend([500, 503])
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES))
        await apply(client, "one")
        await apply(client, "two")
        await until(lambda: len(receiver.got) == 4, what="both arrive in the end")
        assert sorted(names([got.event for got in receiver.got])) in (
            ["one", "one", "one", "two"],
            ["one", "one", "two", "two"],
        )
        assert len(set(receiver.ids)) == 2

        async def logged() -> bool:
            return len(await client.webhooks.deliveries("hook")) == 4

        await until(logged, what="the log is whole")
        attempts = await client.webhooks.deliveries("hook")
        assert [each.status for each in attempts] == [500, 503, 200, 200]
        assert [each.again_at is not None for each in attempts] == [True, True, False, False]
        assert "answer 500" in attempts[0].message


async def test_what_is_never_taken_becomes_a_dead_letter_and_can_be_retried_or_discarded(
    client: Client, process: Process
) -> None:
    async with receiving() as receiver:
        receiver.always = 500
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES, attempts=2))
        await apply(client, "one", "two", "three")

        async def dead() -> bool:
            return len(await client.webhooks.dead("hook")) == 3

        await until(dead, what="three dead letters")
        letters = await client.webhooks.dead()
        assert [letter.attempts for letter in letters] == [2, 2, 2]
        assert "500" in letters[0].reason
        [status] = await client.webhooks.status()
        assert (status.dead, status.waiting) == (3, 0)

        failed = await client.webhooks.retry("hook")
        assert [each.outcome for each in failed.deliveries] == ["dead"]
        assert failed.left == 3
        receiver.always = 204
        sequence = letters[1].sequence
        tried = await client.webhooks.retry("hook", sequences=[sequence])
        assert ([each.outcome for each in tried.deliveries], tried.left) == (["delivered"], 2)
        assert receiver.ids[-1] == letters[1].event
        assert await client.webhooks.discard("hook") == 2
        assert await client.webhooks.dead("hook") == ()
        with pytest.raises(NotFoundError):
            await client.webhooks.retry("hook", sequences=[sequence])


async def test_events_wait_while_it_is_paused_and_come_when_it_is_resumed(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES))
        await client.webhooks.pause("hook", reason="receiver moves house")
        found = await client.webhooks.get("hook")
        assert (found.state, found.reason) == ("paused", "receiver moves house")
        await apply(client, "one", "two")

        async def waiting() -> bool:
            return (await client.webhooks.status("hook"))[0].waiting == 2

        await until(waiting, what="two wait")
        assert receiver.got == []
        await client.webhooks.resume("hook")
        await until(lambda: len(receiver.got) == 2, what="both arrive")


async def test_gone_pauses_the_webhook(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        receiver.always = 410
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES))
        await apply(client, "one")

        async def paused() -> bool:
            return (await client.webhooks.get("hook")).state == "paused"

        await until(paused, what="it is paused")
        assert "410" in (await client.webhooks.get("hook")).reason
        assert await client.webhooks.dead("hook") == ()


async def test_the_past_is_sent_from_where_one_says_and_again_on_replay(client: Client, process: Process) -> None:
    await apply(client, "one", "two")
    async with receiving() as receiver:
        spec = WebhookSpec(url=receiver.url, types=TEMPLATES)
        await client.webhooks.add("hook", spec, start=StartAt(after=0))
        await until(lambda: len(receiver.got) == 2, what="the past arrives")
        second = (await client.webhooks.deliveries("hook"))[-1].sequence
        await client.webhooks.replay("hook", start=StartAt(after=second - 1))
        await until(lambda: len(receiver.got) == 3, what="one comes once more")
        assert receiver.ids[2] == receiver.ids[1]
        await client.webhooks.replay("hook", start=StartAt(since="2020-01-01T00:00:00Z"))
        await until(lambda: len(receiver.got) == 5, what="all come once more")
        await apply(client, "three")
        await until(lambda: len(receiver.got) == 6, what="and the next")


@pytest.mark.parametrize("how", ["sequence", "time"])
async def test_a_replay_takes_what_still_waits_along(client: Client, process: Process, how: str) -> None:
    async with receiving() as receiver:
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES))
        await apply(client, "one")
        await until(lambda: len(receiver.got) == 1, what="one arrives")
        await client.webhooks.pause("hook")
        await apply(client, "two")
        start = StartAt(after=1_000) if how == "sequence" else StartAt(since=timestamp(datetime.now(UTC)))
        await client.webhooks.replay("hook", start=start)
        await apply(client, "three")
        await client.webhooks.resume("hook")
        await until(lambda: len(receiver.got) == 3, what="what waited and what came after arrive")
        assert names([got.event for got in receiver.got]) == ["one", "two", "three"]


async def test_nothing_is_lost_when_the_process_stops_in_the_middle(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES))
        receiver.hold = asyncio.Event()
        await apply(client, "one")
        await until(lambda: len(receiver.got) == 1, what="the first is under way")
        await process.stop()
        receiver.hold.set()
        receiver.hold = None
        await apply(client, "two")
        await process.start()
        await until(lambda: len(set(receiver.ids)) == 2, what="both arrive")
        assert receiver.ids[0] in receiver.ids[1:], "what was not acknowledged comes again, by the same id"


async def test_a_webhook_that_was_added_while_the_process_was_away_misses_nothing(
    client: Client, process: Process
) -> None:
    await process.stop()
    async with receiving() as receiver:
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES))
        await apply(client, "one")
        await process.start()
        await until(lambda: len(receiver.got) == 1, what="the event arrives")


async def test_a_receiver_that_is_down_holds_up_nobody_else(client: Client, process: Process) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/hook"
        async with receiving() as receiver:
            await client.webhooks.add("down", WebhookSpec(url=nowhere, types=TEMPLATES))
            await client.webhooks.add("up", WebhookSpec(url=receiver.url, types=TEMPLATES))
            await apply(client, *(f"shop-{number}" for number in range(10)))
            await until(lambda: len(receiver.got) == 10, what="all arrive", deadline_seconds=60)
            [down] = await client.webhooks.status("down")
            assert down.retrying + down.waiting == 10
            assert down.last is not None
            assert down.last.status is None


async def test_redirects_are_not_followed(client: Client, process: Process) -> None:
    async with receiving() as receiver, receiving() as elsewhere:
        receiver.answers.append(web.Response(status=302, headers={"location": elsewhere.url}))
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, types=TEMPLATES))
        delivery = await client.webhooks.test("hook")
        assert (delivery.outcome, delivery.status) == ("failed", 302)
        assert "redirects are not followed" in delivery.message
        assert elsewhere.got == []


async def test_private_addresses_are_refused_without_leave(client: Client, process: Process) -> None:
    await process.stop()
    await process.start(allow_private=False)
    async with receiving() as receiver:
        for name, url in {"ip": receiver.url, "name": receiver.url.replace("127.0.0.1", "localhost")}.items():
            await client.webhooks.add(name, WebhookSpec(url=url))
            async with asyncio.timeout(60):
                delivery = await _tested(client, name)
            assert delivery == "failed"
        assert receiver.got == []


async def test_an_answer_that_does_not_come_is_a_failure(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        receiver.hold = asyncio.Event()
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url, timeout_seconds=0.2, types=("none.such",)))
        async with asyncio.timeout(60):
            assert await _tested(client, "hook") == "failed"


async def _tested(client: Client, name: str) -> str:
    return (await client.webhooks.test(name)).outcome


async def test_the_secret_can_be_changed_without_a_gap(client: Client, process: Process) -> None:
    async with receiving() as receiver:
        await client.webhooks.add("hook", WebhookSpec(url=receiver.url))
        old = (await client.webhooks.secret("hook")).value
        await client.webhooks.rotate("hook")

        async def changed() -> bool:
            return (await client.webhooks.secret("hook")).value != old

        await until(changed, what="there is a new secret")
        new = (await client.webhooks.secret("hook")).value
        await client.webhooks.test("hook")
        assert signed_by(old, receiver.got[-1])
        assert signed_by(new, receiver.got[-1])


async def test_a_name_that_is_used_again_has_another_secret_and_no_old_letters(
    client: Client, process: Process
) -> None:
    async with receiving() as receiver:
        receiver.always = 500
        spec = WebhookSpec(url=receiver.url, types=TEMPLATES, attempts=1)
        await client.webhooks.add("hook", spec)
        before = await client.webhooks.secret("hook")
        await apply(client, "one")

        async def dead() -> bool:
            return bool(await client.webhooks.dead("hook"))

        await until(dead, what="a dead letter")
        await client.webhooks.remove("hook")
        assert await client.webhooks.list() == ()

        async def gone() -> bool:
            try:
                await client.webhooks.secret("hook")
            except NotFoundError:
                return True
            return False

        await until(gone, what="the process has heard of it")
        await client.webhooks.add("hook", spec)
        assert await client.webhooks.secret("hook") != before
        assert await client.webhooks.dead("hook") == ()


async def test_wrong_definitions_are_refused_by_their_field(client: Client, process: Process) -> None:
    for spec, field in (
        (WebhookSpec(url="ftp://x/y"), "url"),
        (WebhookSpec(url="https://user:secret@example.org/"), "url"),
        (WebhookSpec(url="https://example.org/", types=("image saved",)), "types[0]"),
        (WebhookSpec(url="https://example.org/", attempts=0), "attempts"),
        (WebhookSpec(url="https://example.org/", timeout_seconds=600), "timeout_seconds"),
    ):
        with pytest.raises(InvalidError) as caught:
            await client.webhooks.add("hook", spec)
        assert caught.value.problem.field == field
    await client.webhooks.add("hook", WebhookSpec(url="https://example.org/"))
    await client.webhooks.add("hook", WebhookSpec(url="https://example.org/"))
    with pytest.raises(ConflictError):
        await client.webhooks.add("hook", WebhookSpec(url="https://example.com/"))
    with pytest.raises(NotFoundError):
        await client.webhooks.pause("nobody")
