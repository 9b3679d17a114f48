"""Lists a bucket: the newest version of everything in it.

Asking for versions costs a server several times what asking for objects does, and more with every version that was
overwritten. So where a list of before is known, objects are asked for, and versions only of those that changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from brokers.s3.listings import Listed
from brokers.s3.pages import (
    MANGLED,
    Body,
    Unreadable,
    Version,
    archive_of,
    following_page,
    objects_page,
    sorted_by_key,
    versions_page,
)
from brokers.s3.refusals import Refused
from brokers.s3.wire import Wire

REQUESTS = 24
SETTLED_SECONDS = 5.0
"""Times of objects are in whole seconds: what was written so shortly before a list may have been written again since,
and look the same."""
CHANGED_SHARE = 0.1
"""When more than this share of a bucket changed, asking for all versions is cheaper."""


async def server_time(wire: Wire) -> float:
    """The server's clock, in seconds since the epoch."""
    answer = await wire.ask("GET", query={"list-type": "2", "max-keys": "1"})
    try:
        return parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return 0.0  # so that nothing counts as settled


async def listed(wire: Wire, *, versioned: bool, before: Listed | None) -> list[Version]:
    """What is in the bucket, by version where it keeps them, ordered by key."""
    if not versioned:
        return await objects_now(wire)
    return await (newest_versions(wire) if before is None else versions_since(wire, before))


async def newest_versions(wire: Wire) -> list[Version]:
    """The newest version of every object that is not deleted, ordered by key."""
    found = await _all(wire, {"versions": ""}, versions_page)
    if any(MANGLED in version.key for version in found):
        # Keys that this listing can't say are in the other one.
        known = {version.key for version in found}
        found = [version for version in found if MANGLED not in version.key]
        found += [each for each in await objects_now(wire) if each.key not in known]
    return sorted_by_key(found)


async def objects_now(wire: Wire) -> list[Version]:
    """What is there now, without versions, ordered by key: the right to list is enough."""
    return sorted_by_key(await _all(wire, {"list-type": "2"}, objects_page))


async def _all(wire: Wire, query: Mapping[str, str], parse: Callable[[Body], list[Version]]) -> list[Version]:
    """All pages. The next one is asked for before this one is read through."""
    found: list[Version] = []
    last: dict[str, str] = {}
    asked = {**query, "encoding-type": "url"}
    answer = await wire.ask("GET", query=asked)
    while True:
        following = following_page(answer.body)
        if following and following == last:
            raise Unreadable("a listing of S3 does not get on: each page names the same next one")
        last = following
        page = asyncio.to_thread(parse, answer.body)
        if not following:
            return found + await page
        asking = asyncio.ensure_future(wire.ask("GET", query={**asked, **following}))
        try:
            found += await page
            answer = await asking
        except BaseException:
            asking.cancel()
            raise


async def versions_since(wire: Wire, before: Listed) -> list[Version]:
    """As :func:`newest_versions`, where ``before`` is what was there earlier."""
    known = {version.key: version for version in before.versions}
    found: list[Version] = []
    changed: list[Version] = []
    settled = before.at - SETTLED_SECONDS
    for now in await objects_now(wire):
        then = known.get(now.key)
        same = then is not None and (then.size, then.etag, then.modified) == (now.size, now.etag, now.modified)
        if then is not None and same and then.kept and _instant(now.modified) < settled:
            found.append(then._replace(archive=now.archive))  # rules move objects, which changes nothing else
        else:
            changed.append(now)
    if len(changed) > CHANGED_SHARE * (len(found) + len(changed)):
        return await newest_versions(wire)
    waiting = iter(changed)

    async def look() -> None:
        for version in waiting:
            if (newest := await _newest(wire, version)) is not None:
                found.append(newest)

    looking = [asyncio.ensure_future(look()) for _ in range(min(REQUESTS, len(changed)))]
    try:
        await asyncio.gather(*looking)
    finally:
        for each in looking:
            each.cancel()
    return sorted_by_key(found)


async def _newest(wire: Wire, version: Version) -> Version | None:
    """What the object is now; ``None`` when it was deleted meanwhile."""
    try:
        headers = (await wire.ask("HEAD", version.key)).headers
    except Refused as error:
        if error.status == 404:
            return None
        raise
    told = headers.get("last-modified", "")
    modified = version.modified if _instant(version.modified) == _instant(told) else told
    name = headers.get("x-amz-version-id", "null")
    size, archive = int(headers.get("content-length", "0")), archive_of(headers.get("x-amz-storage-class", ""))
    return Version(version.key, name, size, headers.get("etag", ""), modified, archive)


def _instant(modified: str) -> float:
    """Whole seconds since the epoch of either spelling; the future, when it is neither."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return float(int(parse(modified).timestamp()))
        except ValueError:
            continue
    return float("inf")
