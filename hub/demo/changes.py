"""Changes a copy as its users would."""

from __future__ import annotations

import aiohttp

from hub.demo.failing import fail


async def change(url: str) -> None:
    """Change a copy as its users would: more votes, one idea deleted, a new one; seen to have happened."""
    async with aiohttp.ClientSession(
        base_url=url, timeout=aiohttp.ClientTimeout(total=30), raise_for_status=True
    ) as session:

        async def stats() -> dict[str, int]:
            async with session.get("/api/stats") as answer:
                return dict(await answer.json())

        before = await stats()
        async with session.get("/api/ideas?limit=10") as answer:
            voted, deleted, *_ = (await answer.json())["ideas"]
        async with session.post(f"/api/ideas/{voted['id']}/votes", json={"count": 3}):
            pass
        async with session.delete(f"/api/ideas/{deleted['id']}"):
            pass
        idea = {"title": "Only at the copy", "text": "Nobody else sees it.", "author": "demo", "document": "Y29weQ=="}
        async with session.post("/api/ideas", json=idea):
            pass
        expected = {**before, "votes": before["votes"] + 3 - deleted["votes"]}
        after = await stats()
        if (after["count"], after["votes"]) != (expected["count"], expected["votes"]):
            fail(f"a changed copy counts {after} instead of {expected}")
