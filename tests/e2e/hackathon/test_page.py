"""The page of the sample application."""

import base64
import hashlib
import re

from tests.e2e.hackathon.sample import Sample, idea


async def _page(sample: Sample, path: str = "/") -> str:
    async with sample.http.get(path) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        return await answer.text()


async def test_an_empty_application_says_so(sample: Sample) -> None:
    assert "No ideas yet" in await _page(sample)


async def test_ideas_stand_in_the_order_of_their_votes_page_by_page(sample: Sample) -> None:
    ideas = [idea(title=f"Idea number {number:02}") for number in range(45)]
    ids = (await sample.post("/api/ideas:batch", {"ideas": ideas}, status=201))["ids"]
    await sample.post(f"/api/ideas/{ids[31]}/votes", {"count": 2})
    await sample.post(f"/api/ideas/{ids[40]}/votes", {"count": 3})
    pages = [await _page(sample, f"/?page={number}") for number in (1, 2, 3)]
    titles = [re.findall(r"Idea number (\d\d)", page) for page in pages]
    others = [f"{number:02}" for number in range(45) if number not in (31, 40)]
    assert [*titles[0], *titles[1], *titles[2]] == ["40", "31", *others]
    assert [len(each) for each in titles] == [20, 20, 5]
    assert ("Page 2 of 3" in pages[1], 'href="/?page=3"' in pages[1]) == (True, True)
    assert "No such page" in await _page(sample, "/?page=9")


async def test_what_users_wrote_is_text_and_the_style_is_allowed(sample: Sample) -> None:
    nasty = '<script>alert("1")</script>\'&'
    await sample.post("/api/ideas", idea(title=nasty, text=nasty, author=nasty), status=201)
    async with sample.http.get("/") as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3
    assert "<h1>Ideas &amp; &lt;more&gt;</h1>" in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page), "the page needs nothing from elsewhere"
