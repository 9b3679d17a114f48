"""An app is saved while it is written to; the copy is a moment of it, and from then on a thing of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp
import pytest

from hub.client import Client, Snapshot
from hub.demo.proof import ProofReport, bindings_differ, prove
from hub.demo.reading import Access, fingerprint
from hub.demo.writers import History, Writers
from schemas.envelope import parse_timestamp
from schemas.queries import AppView, OperationView
from schemas.values import TemplateRef
from tests.e2e.main_job.ways import OPERATION_SECONDS, finished
from tests.e2e.stack import Stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

BEFORE, AFTER = 10, 30


@dataclass
class Thawed:
    """When every thaw of a save was first seen to be confirmed, in monotonic seconds."""

    at: float | None = None

    def __call__(self, now: Snapshot) -> None:
        thaws = [step for step in now.view.steps if step.step.action == "thaw"] if now.view else []
        if self.at is None and thaws and all(step.state == "done" for step in thaws):
            self.at = time.monotonic()


async def test_a_copy_taken_while_written_to_is_a_gapless_prefix_and_a_thing_of_its_own(stack: Stack) -> None:
    async with await stack.client() as client:
        started = await client.deploy(TemplateRef(name="hackathon"), name="busy", site="north")
        await finished(client, started)
        north = await client.app(started.target)
        assert north.url is not None

        thawed = Thawed()
        async with Writers(url=north.url) as writers:
            await until(lambda: _each_wrote(writers), seconds=30, what="every writer has written")
            began = time.monotonic()
            saving = await client.save(north.id, name="busy-1")
            assert saving.operation is not None
            await client.wait(saving.operation, timeout=OPERATION_SECONDS, observer=thawed)
            ended = time.monotonic()
            so_far = writers.history.acknowledged()
            await writers.acknowledged(so_far + AFTER, deadline=time.monotonic() + 60)
        bounds = writers.history.bounds(saving_began=began, thawed=thawed.at or ended)
        assert all(each.least >= BEFORE for each in bounds)
        assert through_the_gate(writers.history, await client.operation(saving.operation)) == []

        image = await client.image(saving.target)
        assert image.level == "application"
        assert image.writers_wait_seconds is not None
        assert 0 < image.writers_wait_seconds < ended - began

        copy = await _run(client, image.id, name="busy-copy", site="south")
        original, copied = await _access(client, north), await _access(client, copy)
        (await prove(access=copied, history=writers.history, bounds=bounds)).require()
        ProofReport(checks=(bindings_differ(original, copied, same_site=False),)).require()
        (await prove(access=original, history=writers.history, bounds=writers.history.final_bounds())).require()

        held, before = await fingerprint(copied), await fingerprint(original)
        await _edit(copied.url)
        assert await fingerprint(copied) != held
        assert await fingerprint(original) == before
        again = await _access(client, await _run(client, image.id, name="busy-again", site="south"))
        assert await fingerprint(again) == held
        ProofReport(checks=(bindings_differ(copied, again, same_site=True),)).require()

        await _edit(original.url)
        assert await fingerprint(again) == held


def through_the_gate(history: History, saving: OperationView) -> list[tuple[str, int]]:
    """Writes that began after every app service was quiesced, and were acknowledged before any was let go on."""
    quiesced = max(_moment(step.ended_at) for step in saving.steps if step.step.action == "quiesce")
    thawing = min(_moment(step.started_at) for step in saving.steps if step.step.action == "thaw")
    assert quiesced < thawing
    begun = {(each.writer, each.seq): each.wall for each in history.entries if each.fact == "begun"}
    return [
        (each.writer, each.seq)
        for each in history.entries
        if each.fact == "acknowledged" and each.wall < thawing and begun[each.writer, each.seq] > quiesced
    ]


def _moment(timestamp: str) -> float:
    return parse_timestamp(timestamp).timestamp()


async def _each_wrote(writers: Writers) -> bool:
    """The first writes to a new bucket take some writers a second, the others nothing."""
    return all(each.least >= BEFORE for each in writers.history.final_bounds())


async def _run(client: Client, image: str, *, name: str, site: str) -> AppView:
    started = await client.run(image, name=name, site=site)
    await finished(client, started)
    return await client.app(started.target)


async def _access(client: Client, app: AppView) -> Access:
    ideas = await client.binding(app.id, "ideas")
    docs = await client.binding(app.id, "docs")
    assert app.url is not None
    return Access(
        url=app.url,
        postgres_uri=ideas.secrets["uri"].value,
        s3_endpoint=docs.attributes["endpoint"],
        s3_bucket=docs.attributes["bucket"],
        s3_access_key=docs.attributes["access_key"],
        s3_secret_key=docs.secrets["secret_key"].value,
        s3_region=docs.attributes["region"],
    )


async def _edit(url: str) -> None:
    """Delete an idea, vote for one, and add one."""
    async with aiohttp.ClientSession(base_url=url, raise_for_status=True) as session:
        async with session.get("/api/ideas?limit=2") as answer:
            first, second = (await answer.json())["ideas"]
        async with session.post(f"/api/ideas/{first['id']}/votes", json={"count": 5}):
            pass
        async with session.delete(f"/api/ideas/{second['id']}"):
            pass
        added = {"title": "Late", "text": "added after the copy", "author": "a tester", "document": "bGF0ZQ=="}
        async with session.post("/api/ideas", json=added):
            pass
