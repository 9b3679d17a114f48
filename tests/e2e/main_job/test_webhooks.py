"""Webhooks on a whole stack: what a receiver gets of the main job, and what a killed process loses (nothing)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.main_job.conftest import Told
from tests.e2e.main_job.ways import must
from tests.e2e.stack import Stack, until
from tests.receiver import Receiver, receiving, signed_by

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


async def arrived(receiver: Receiver, count: int, *, what: str) -> None:
    async def there() -> bool:
        return len(receiver.got) >= count

    await until(there, seconds=60, what=what)


async def dead_letters(stack: Stack, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await must(stack, "webhook", "dead", "list", name, "-o", "json")).json
    return found


async def test_a_saved_image_is_told_to_a_receiver_tried_again_put_aside_and_replayed(stack: Stack, told: Told) -> None:
    async with receiving() as receiver:
        receiver.answers.extend([503, 200])
        hook = ("--url", receiver.url, "--type", "image.saved", "--attempts", "2")
        made = (await must(stack, "webhook", "add", "images", *hook, "--app", "ideas", "-o", "json")).json
        try:
            await must(stack, "save", "ideas", "--name", "hooked")
            await arrived(receiver, 2, what="image.saved, and again after a 503")
            assert receiver.types == ["image.saved", "image.saved"]
            assert len(set(receiver.ids)) == 1
            assert signed_by(made["secret"], receiver.got[-1])
            [one] = receiver.got[-1].event["data"]["content"]["instances"]
            assert one["instance_name"] == "ideas"

            # what is about another app is not sent
            await must(stack, "save", "copy", "--name", "hooked-copy")
            receiver.always = 500
            await must(stack, "save", "ideas", "--name", "hooked-again")

            async def dead() -> bool:
                return len(await dead_letters(stack, "images")) == 1

            await until(dead, seconds=20, what="a dead letter")
            assert len(set(receiver.ids)) == 2
            assert (await stack.cli("webhook", "dead", "retry", "images")).code == 1
            receiver.always = 200
            await must(stack, "webhook", "dead", "retry", "images")
            assert await dead_letters(stack, "images") == []

            before = len(receiver.got)
            await must(stack, "webhook", "replay", "images", "--from", "1h")

            async def again() -> bool:
                return set(receiver.ids[before:]) >= set(receiver.ids[:before])

            await until(again, seconds=60, what="both images of ideas once more")
            shown = (await must(stack, "webhook", "deliveries", "images")).stdout
            assert "image.saved" in shown
            assert "503" in shown
            described = (await must(stack, "webhook", "describe", "images")).stdout
            assert receiver.url in described
        finally:
            await must(stack, "webhook", "remove", "images", "--yes")


@pytest.mark.full
async def test_a_killed_process_loses_nothing(stack: Stack) -> None:
    async with receiving() as receiver:
        await must(stack, "webhook", "add", "all", "--url", receiver.url, "--type", "webhook.*")
        try:
            for number in range(5):
                if number == 2:
                    stack.kill("webhooks")
                await must(stack, "webhook", "add", f"other-{number}", "--url", receiver.url, "--type", "none.such")
            await arrived(receiver, 5, what="all five")
            added = {got.event["subject"] or got.id for got in receiver.got if got.type.endswith("added.v1")}
            assert len(added) == 5
        finally:
            for name in ("all", *(f"other-{number}" for number in range(5))):
                await must(stack, "webhook", "remove", name, "--yes")
