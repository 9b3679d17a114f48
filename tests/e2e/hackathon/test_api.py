"""The HTTP interface of the sample application, on a real Postgres and a real S3 server."""

import asyncio
import base64
import hashlib
import io
from typing import Any

import aiohttp
import pytest

from tests.e2e.hackathon.sample import Sample, idea


async def test_an_idea_and_its_document_come_back_as_sent(sample: Sample) -> None:
    document = bytes(range(256)) * 300
    made = await sample.post("/api/ideas", idea(title="Kettle", document=document), status=201)
    assert await sample.get(f"/api/ideas/{made['id']}") == made
    assert made["doc_digest"] == hashlib.sha256(document).hexdigest()
    async with sample.http.get(f"/api/ideas/{made['id']}/document") as answer:
        assert await answer.read() == document
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    stats = await sample.get("/api/stats")
    assert stats == {"count": 1, "votes": 0, "documents": 1, "bytes": len(document)}
    assert sample.place.stored_keys() == {made["doc_key"]}


async def test_an_empty_document_is_a_document(sample: Sample) -> None:
    made = await sample.post("/api/ideas", idea(document=b""), status=201)
    async with sample.http.get(f"/api/ideas/{made['id']}/document") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_a_form_is_taken_as_well(shared: Sample) -> None:
    form = aiohttp.FormData({"title": "By form", "text": "", "author": "grace", "writer": "form", "seq": "1"})
    form.add_field("document", "ünïcode".encode(), filename="plan.txt", content_type="text/plain")
    async with shared.http.post("/api/ideas", data=form) as answer:
        assert answer.status == 201, await answer.text()
        made = await answer.json()
    assert (made["writer"], made["seq"]) == ("form", 1)
    async with shared.http.get(f"/api/ideas/{made['id']}/document") as answer:
        assert await answer.text() == "ünïcode"


async def test_a_batch_is_stored_whole_or_not_at_all(sample: Sample) -> None:
    ideas = [idea(title=f"Idea {number}", document=b"x" * number) for number in range(50)]
    answer = await sample.post("/api/ideas:batch", {"ideas": ideas}, status=201)
    assert (len(set(answer["ids"])), answer["created"]) == (50, 50)
    listed = (await sample.get("/api/ideas?limit=500"))["ideas"]
    assert [each["title"] for each in listed] == [each["title"] for each in ideas]
    refused = await sample.post("/api/ideas:batch", {"ideas": [idea(), idea(title=7)]}, status=400)
    assert refused["field"] == "ideas[1].title"
    assert (await sample.get("/api/stats"))["count"] == 50


async def test_a_write_sent_again_is_one_idea_with_one_document(sample: Sample) -> None:
    body = idea(writer="w", seq=1)
    first = await sample.post("/api/ideas", body, status=201)
    assert await sample.post("/api/ideas", body) == first
    again = await asyncio.gather(*(_status(sample, idea(writer="w", seq=2)) for _ in range(8)))
    assert sorted(again) == [200] * 7 + [201]
    assert len(sample.place.stored_keys()) == 2
    assert (await sample.get("/api/stats"))["count"] == 2


async def test_a_seq_used_for_another_idea_is_a_conflict(sample: Sample) -> None:
    first = await sample.post("/api/ideas", idea(writer="w", seq=1), status=201)
    refused = await sample.post("/api/ideas", idea(writer="w", seq=1, document=b"other"), status=409)
    assert refused["field"] == "seq"
    assert sample.place.stored_keys() == {first["doc_key"]}


async def test_a_listing_of_a_writer_follows_its_seq_and_has_pages(sample: Sample) -> None:
    for seq in (3, 1, 2, 10):
        await sample.post("/api/ideas", idea(writer="w", seq=seq), status=201)
    await sample.post("/api/ideas", idea(), status=201)
    page = await sample.get("/api/ideas?writer=w&offset=1&limit=2")
    assert ([each["seq"] for each in page["ideas"]], page["total"]) == ([2, 3], 4)


async def test_votes_add_up(shared: Sample) -> None:
    made = await shared.post("/api/ideas", idea(), status=201)
    votes = f"/api/ideas/{made['id']}/votes"
    await asyncio.gather(*(shared.post(votes) for _ in range(10)))
    assert await shared.post(votes, {"count": 5}) == {"votes": 15}


async def test_a_deleted_idea_takes_its_document_along(sample: Sample) -> None:
    made = await sample.post("/api/ideas", idea(), status=201)
    path = f"/api/ideas/{made['id']}"
    async with sample.http.delete(path) as answer:
        assert answer.status == 204
    for method, tail in (("GET", ""), ("GET", "/document"), ("DELETE", ""), ("POST", "/votes")):
        async with sample.http.request(method, path + tail) as answer:
            assert (answer.status, "error" in await answer.json()) == (404, True)
    assert sample.place.stored_keys() == set()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": "   "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": None}, "title"),
        ({"title": "nul\0"}, "title"),
        ({"text": "\ud800"}, "text"),
        ({"text": ["a"]}, "text"),
        ({"author": 7}, "author"),
        ({"document": "not base64!"}, "document"),
        ({"document": 7}, "document"),
        ({"writer": "w"}, "seq"),
        ({"seq": 1}, "writer"),
        ({"writer": "no spaces", "seq": 1}, "writer"),
        ({"writer": "w", "seq": 0}, "seq"),
        ({"writer": "w", "seq": True}, "seq"),
        ({"writer": "w", "seq": 1.5}, "seq"),
        ({"writer": "w", "seq": 2**63}, "seq"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_field_is_named(shared: Sample, changes: dict[str, Any], field: str) -> None:
    refused = await shared.post("/api/ideas", idea(**changes), status=400)
    assert refused["field"] == field
    assert refused["error"].startswith(field)


@pytest.mark.parametrize("field", ["title", "text", "author", "document"])
async def test_a_missing_field_is_named(shared: Sample, field: str) -> None:
    body = idea()
    del body[field]
    assert (await shared.post("/api/ideas", body, status=400))["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "content_type", "body", "status"),
    [
        ("POST", "/api/ideas", "application/json", b"{not json", 400),
        ("POST", "/api/ideas", "application/json", b"\xff\xfe", 400),
        ("POST", "/api/ideas", "application/json", b"[" * 60_000, 400),
        ("POST", "/api/ideas", "application/json", b"[]", 400),
        ("POST", "/api/ideas", "text/plain", b"{}", 415),
        ("POST", "/api/ideas", "multipart/form-data", b"nothing", 400),
        ("POST", "/api/ideas", "multipart/form-data; boundary=b", b"--b\r\n\r\nx", 400),
        ("POST", "/api/ideas", "application/json", b" " * (12 * 1024**2 + 1), 413),
        ("POST", "/api/ideas:batch", "application/json", b'{"ideas": []}', 400),
        ("POST", "/api/ideas:batch", "application/json", b'{"ideas": {}}', 400),
        ("POST", "/hooks/quiesce", "application/json", b'{"deadline_seconds": -1}', 400),
        ("POST", "/hooks/quiesce", "application/json", b'{"deadline_seconds": "soon"}', 400),
        ("POST", "/hooks/quiesce", "application/json", b'{"deadline_seconds": NaN}', 400),
        ("GET", "/api/ideas?limit=0", None, None, 400),
        ("GET", "/api/ideas?offset=-1", None, None, 400),
        ("GET", "/?page=x", None, None, 400),
        ("GET", "/api/ideas/0190a0e6-0000-7000-8000-000000000000", None, None, 404),
        ("GET", "/api/ideas/x", None, None, 404),
        ("GET", "/nowhere", None, None, 404),
        ("PUT", "/api/ideas", None, None, 405),
    ],
)
async def test_what_is_not_understood_is_answered_in_json(
    shared: Sample, method: str, path: str, content_type: str | None, body: bytes | None, status: int
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    data = None if body is None else io.BytesIO(body)
    async with shared.http.request(method, path, data=data, headers=headers) as answer:
        found = await answer.json()
        assert (answer.status, isinstance(found["error"], str)) == (status, True)


async def test_a_document_over_the_limit_is_refused(shared: Sample) -> None:
    document = base64.b64encode(b"x" * (8 * 1024**2 + 1)).decode()
    assert (await shared.post("/api/ideas", idea(document=document), status=400))["field"] == "document"


async def _status(sample: Sample, body: dict[str, Any]) -> int:
    async with sample.http.post("/api/ideas", json=body) as answer:
        return answer.status
