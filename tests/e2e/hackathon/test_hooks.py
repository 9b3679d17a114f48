"""The hooks that a save uses, while the application is written to."""

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from hub.demo.writers import Writers
from tests.e2e.hackathon.sample import Place, Sample, idea, running, until


async def test_nothing_changes_between_quiesce_and_thaw(sample: Sample) -> None:
    async with Writers(url=sample.access.url, count=8, pause_seconds=0) as writers:
        await writers.acknowledged(200, deadline=monotonic() + 60)
        state = await sample.post("/hooks/quiesce", {"deadline_seconds": 300})
        assert (state["quiesced"], state["held"], state["in_flight"]) == (True, True, 0)
        before = _everything(sample.place)
        acknowledged = writers.history.acknowledged()
        await until(lambda: _waiting(sample, 8), what="all writers wait at the gate")
        assert (await sample.get("/healthz"))["status"] == "ok"
        assert (await sample.get("/api/stats"))["count"] == len(before[0])
        async with sample.http.get("/") as page:
            assert "Writes are held" in await page.text()
        # An acknowledgement that was under way when the gate closed may still arrive; its row was there.
        assert _everything(sample.place) == before
        assert acknowledged <= len(before[0])
        thawed = await sample.post("/hooks/thaw")
        assert (thawed["quiesced"], thawed["held"], thawed["hold"]) == (False, True, state["hold"])
        await writers.acknowledged(acknowledged + 50, deadline=monotonic() + 60)
    assert _everything(sample.place)[0][: len(before[0])] == before[0]


@pytest.mark.full
async def test_quiesce_waits_for_the_writes_in_flight(sample: Sample) -> None:
    ideas = [idea(document=b"x" * 20_000) for _ in range(200)]
    batch = asyncio.create_task(sample.post("/api/ideas:batch", {"ideas": ideas}, status=201))
    await until(lambda: _in_flight(sample), what="the batch is in flight")
    await sample.post("/hooks/quiesce", {"deadline_seconds": 300})
    assert len(_everything(sample.place)[0]) == 200
    await batch
    await sample.post("/hooks/thaw")


@pytest.mark.full
async def test_an_application_nobody_thaws_goes_on_at_its_deadline(sample: Sample) -> None:
    started = monotonic()
    first = await sample.post("/hooks/quiesce", {"deadline_seconds": 0.5})
    await sample.post("/api/ideas", idea(), status=201)
    assert monotonic() - started >= 0.5
    late = await sample.post("/hooks/thaw")
    assert (late["held"], late["hold"]) == (False, first["hold"]), "a hold that broke must not be called unbroken"


async def test_both_hooks_may_be_sent_again(sample: Sample) -> None:
    nothing_held = await sample.post("/hooks/thaw")
    assert (nothing_held["held"], nothing_held["hold"]) == (False, None)
    first = await sample.post("/hooks/quiesce", {"deadline_seconds": 60})
    second = await sample.post("/hooks/quiesce", {"deadline_seconds": 300})
    assert (second["hold"], second["seconds_left"] > 150) == (first["hold"], True)
    assert (await sample.post("/hooks/quiesce", {"deadline_seconds": 60}))["seconds_left"] > 150
    assert await sample.post("/hooks/thaw") == await sample.post("/hooks/thaw")
    await sample.post("/api/ideas", idea(), status=201)
    assert (await sample.post("/hooks/quiesce"))["hold"] != first["hold"]


@pytest.mark.parametrize("verb", ["vote", "delete", "batch"])
@pytest.mark.full
async def test_every_kind_of_write_is_held(sample: Sample, verb: str) -> None:
    made = await sample.post("/api/ideas", idea(), status=201)
    path = f"/api/ideas/{made['id']}"
    await sample.post("/hooks/quiesce", {"deadline_seconds": 300})
    before = _everything(sample.place)
    requests = {
        "vote": lambda: sample.http.post(f"{path}/votes"),
        "delete": lambda: sample.http.delete(path),
        "batch": lambda: sample.http.post("/api/ideas:batch", json={"ideas": [idea(), idea()]}),
    }
    write = asyncio.ensure_future(requests[verb]())
    await until(lambda: _waiting(sample, 1), what="the write waits")
    assert _everything(sample.place) == before
    await sample.post("/hooks/thaw")
    async with await write as answer:
        assert answer.status < 300
    assert _everything(sample.place) != before


async def test_a_held_write_is_refused_rather_than_done_when_the_application_stops(
    fresh_place: Place, tmp_path: Path
) -> None:
    async with running(fresh_place, tmp_path / "log") as sample:
        await sample.post("/hooks/quiesce", {"deadline_seconds": 300})
        write = asyncio.create_task(sample.post("/api/ideas", idea(), status=503))
        await until(lambda: _waiting(sample, 1), what="the write waits")
        assert await sample.terminate() == 0
        assert "send it again" in (await write)["error"]
    assert _everything(fresh_place) == ([], set())


async def _waiting(sample: Sample, count: int) -> bool:
    state: dict[str, Any] = await sample.get("/hooks/state")
    return bool(state["waiting"] == count)


async def _in_flight(sample: Sample) -> bool:
    state: dict[str, Any] = await sample.get("/hooks/state")
    return bool(state["in_flight"] > 0)


def _everything(place: Place) -> tuple[list[tuple[Any, ...]], set[str]]:
    return place.sql("SELECT ordinal, id, votes, doc_key FROM ideas ORDER BY ordinal"), place.stored_keys()
