"""Previews of documents: drawn the same everywhere, kept on a volume where there is one, never needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hub.demo.proof import judge
from hub.demo.reading import contents
from hub.demo.writers import History
from tests.e2e.hackathon.sample import Place, Sample, idea, running

DOCUMENTS = [b"Tea from the <sun>\n& more\n", b"", bytes(range(256)) * 8, "é".encode() * 3000, b"a\0b\x07" * 10]


@pytest.fixture
async def with_volume(fresh_place: Place, tmp_path: Path) -> AsyncIterator[Sample]:
    volume = tmp_path / "volume"
    volume.mkdir()
    place = replace(fresh_place, access=replace(fresh_place.access, thumbs_path=str(volume)))
    async with running(place, tmp_path / "log") as sample:
        yield sample


def _kept(sample: Sample) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in Path(sample.access.thumbs_path).glob("*/*")}


async def _shown(sample: Sample, idea_id: str) -> bytes:
    async with sample.http.get(f"/api/ideas/{idea_id}/thumbnail") as answer:
        assert (answer.status, answer.content_type) == (200, "image/svg+xml")
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        return await answer.read()


async def test_each_small_document_has_its_picture_on_the_volume(with_volume: Sample, shared: Sample) -> None:
    ideas = [idea(document=document) for document in DOCUMENTS]
    ids = (await with_volume.post("/api/ideas:batch", {"ideas": ideas}, status=201))["ids"]
    kept = _kept(with_volume)
    small = {each for each, document in zip(ids, DOCUMENTS, strict=True) if len(document) <= 2048}
    assert kept.keys() == small != set(ids)
    pictures = {each: await _shown(with_volume, each) for each in ids}
    for each in ids:
        ElementTree.fromstring(pictures[each])
    assert all(pictures[each] == kept[each] for each in small)
    assert b"Tea from the &lt;sun&gt;" in kept[ids[0]]
    without = (await shared.post("/api/ideas:batch", {"ideas": ideas}, status=201))["ids"]
    assert [await _shown(shared, each) for each in without] == [pictures[each] for each in ids]


async def test_what_is_lost_is_drawn_again_and_what_is_removed_goes(with_volume: Sample) -> None:
    made = await with_volume.post("/api/ideas", idea(writer="w", seq=1), status=201)
    picture = _kept(with_volume)[made["id"]]
    for path in Path(with_volume.access.thumbs_path).glob("*/*"):
        path.unlink()
    assert await _shown(with_volume, made["id"]) == picture
    assert _kept(with_volume) == {}, "a read writes nothing: a copy may be made just now"
    await with_volume.post("/api/ideas", idea(writer="w", seq=1), status=200)
    assert _kept(with_volume) == {made["id"]: picture}
    async with with_volume.http.delete(f"/api/ideas/{made['id']}") as answer:
        assert answer.status == 204
    assert _kept(with_volume) == {}
    async with with_volume.http.get(f"/api/ideas/{made['id']}/thumbnail") as answer:
        assert answer.status == 404


async def test_a_volume_that_is_gone_stops_nobody(with_volume: Sample) -> None:
    Path(with_volume.access.thumbs_path).rmdir()
    made = await with_volume.post("/api/ideas", idea(), status=201)
    assert await _shown(with_volume, made["id"])
    async with with_volume.http.delete(f"/api/ideas/{made['id']}") as answer:
        assert answer.status == 204
    assert "previews are not kept" in with_volume.log.read_text()


async def test_the_judge_sees_a_volume_that_does_not_fit(with_volume: Sample) -> None:
    ids = (await with_volume.post("/api/ideas:batch", {"ideas": [idea(), idea(document=b"x")]}, status=201))["ids"]
    files = {path.stem: path for path in Path(with_volume.access.thumbs_path).glob("*/*")}

    async def faults() -> list[str]:
        checks = judge(
            await contents(with_volume.access), history=History(writers=(), entries=()), bounds=(), loaded=None
        )
        return [check.found for check in checks if not check.passed]

    assert await faults() == []
    picture = await asyncio.to_thread(files[ids[0]].read_bytes)
    files[ids[0]].write_bytes(files[ids[1]].read_bytes())
    assert await faults() == [f"the preview of idea {ids[0]} shows another document"]
    files[ids[0]].unlink()
    assert await faults() == [f"the preview of idea {ids[0]} is missing"]
    files[ids[0]].write_bytes(picture)
    files[ids[0]].with_stem("other").write_bytes(picture)
    assert await faults() == ["there is a preview of other, which is no idea"]
