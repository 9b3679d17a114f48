"""Objects of a bucket that lie in an archive. They can be read once S3 was asked to bring them back, and did: that
takes minutes to days, and costs whoever owns the bucket. So nothing is asked for unless the settings say so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from brokers.s3.pages import Version, restore_request
from brokers.s3.refusals import Refused
from brokers.s3.settings import S3Settings
from brokers.s3.wire import Wire
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.progress import Reporter
from schemas.problems import CalqueError

REQUESTS = 24
RETRY_SECONDS = 300.0
_ONGOING = re.compile(r'ongoing-request="?(true|false)', re.IGNORECASE)
_UNDER_WAY = frozenset({"RestoreAlreadyInProgress", "409"})
_NEVER = frozenset({"NoSuchKey", "NoSuchVersion", "404", "InvalidObjectState"})
"""What needs no bringing back: it is not there any more, or in no archive."""


class Readable(NamedTuple):
    """What of a list can be read, and in words what can't."""

    versions: list[Version]
    left_out: tuple[str, ...] = ()


async def bring_back(wire: Wire, versions: Sequence[Version], *, settings: S3Settings, reporter: Reporter) -> None:
    """Have everything brought back that lies in an archive, and wait for it. May be repeated. Raises the temporary
    problem ``archived`` when it takes longer than the settings say."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.archive_wait_hours * 3600
    waiting = await _asleep(wire, versions)
    total, count = sum(version.size for version in waiting), len(waiting)

    async def ask(version: Version) -> None:
        body = restore_request(days=settings.archive_days, tier=settings.archive_tier)
        query = {"restore": "", **version.query}
        try:
            await wire.ask("POST", version.key, query=query, body=body, headers={"content-type": "application/xml"})
        except Refused as error:
            if error.status == 403 and error.code not in _NEVER:
                raise _may_not_restore(error) from None
            if error.code not in _UNDER_WAY | _NEVER:
                raise

    await _at_once(ask, waiting)
    while waiting:
        done = total - sum(version.size for version in waiting)
        told = f"{count - len(waiting)} of {count} objects are back from the archive"
        reporter.report(done=done, total=total, message=told)
        if loop.time() >= deadline:
            raise temporary_error(
                "archived",
                f"{_what(waiting)} is still being brought back from an archive after {settings.archive_wait_hours:g} h",
                field="archive_wait_hours",
                retry_after_seconds=RETRY_SECONDS,
            )
        await asyncio.sleep(min(settings.archive_poll_seconds, max(0.0, deadline - loop.time())))
        waiting = await _asleep(wire, waiting)
    if count:
        reporter.report(done=total, total=total, message=f"{count} objects are back from the archive")


async def readable(wire: Wire, versions: list[Version], *, settings: S3Settings) -> Readable:
    """What of a list can be read now. Raises the problem ``archived`` for the rest, unless that is to be left out."""
    asleep = await _asleep(wire, versions)
    if not asleep:
        return Readable(versions)
    if settings.archived == "leave_out":
        missing = {version.key for version in asleep}
        left = [version for version in versions if version.key not in missing]
        return Readable(left, (f"{_what(asleep)}: it lies in an archive",))
    if settings.archived == "restore":
        raise temporary_error(
            "archived", f"{_what(asleep)} is not back from its archive yet", retry_after_seconds=RETRY_SECONDS
        )
    raise permanent_error(
        "archived",
        f"{_what(asleep)} lies in an archive and can't be read",
        field="archived",
        remedy="bring it back and save again; or have the broker do so, or leave it out: its setting archived",
    )


async def _asleep(wire: Wire, versions: Sequence[Version]) -> list[Version]:
    """Those that lie in an archive and are not brought back; without those that are gone."""
    found: list[Version] = []

    async def look(version: Version) -> None:
        try:
            headers = (await wire.ask("HEAD", version.key, query=version.query)).headers
        except Refused as error:
            if error.status != 404:
                raise
            return
        told = _ONGOING.search(headers.get("x-amz-restore", ""))
        if told is None or told[1].lower() == "true":
            found.append(version)

    await _at_once(look, [version for version in versions if version.archive])
    return sorted(found, key=lambda version: version.key)


async def _at_once(call: Callable[[Version], Awaitable[None]], versions: Sequence[Version]) -> None:
    """Call it with each, several at once. The first failure ends all."""
    waiting = iter(versions)

    async def work() -> None:
        for version in waiting:
            await call(version)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(REQUESTS, len(versions))):
                group.create_task(work())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _what(versions: Sequence[Version]) -> str:
    size = sum(version.size for version in versions)
    if len(versions) == 1:
        return f"object {versions[0].key!r} ({size:,} bytes)"
    return f"{len(versions):,} objects ({size:,} bytes), the first of them {versions[0].key!r},"


def _may_not_restore(error: Refused) -> CalqueError:
    return permanent_error(
        "unauthorised",
        f"S3 doesn't let the broker bring objects back: {error.message}",
        remedy="let the access key s3:RestoreObject, or set archived to leave_out",
    )
