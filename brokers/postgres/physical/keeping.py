"""What a copy keeps of its parent: entries of files that did not change meanwhile."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from brokers.postgres.physical.changes import Beginning, main_fork_of, touched
from brokers.postgres.physical.files import LABEL
from brokers.postgres.physical.staging import StagedFile
from brokers.postgres.server import Server, ServerError
from brokers.sdk.copystream import KeptEntry, KnownEntry

logger = logging.getLogger(__name__)


async def unchanged(
    known: AsyncGenerator[KnownEntry, None], files: Iterable[StagedFile], beginning: Beginning, server: Server
) -> dict[str, KeptEntry]:
    """Those of ``files``, by path, that are in the parent as they are now; none when that can't be told. ``known`` are
    the parent's entries, of which the label is the first."""
    sizes = {file.path: file.size for file in files}
    candidates: list[KnownEntry] = []
    since = ""
    async with aclosing(known) as entries:
        async for entry in entries:
            if not since and not (since := beginning.since(entry.metadata) if entry.key == LABEL else ""):
                return {}
            if main_fork_of(entry.key) is not None and sizes.get(entry.key) == entry.size:
                candidates.append(entry)
    if not candidates:
        return {}
    try:
        async with server.session() as session:
            changes = await touched(session, timeline=beginning.timeline, since=since, until=beginning.start)
    except ServerError as error:
        logger.warning("what changed since the copy before can't be told, all is read: %s", error)
        return {}
    if changes is None:
        logger.info("the server has no summaries of its log since the copy before: all is read")
        return {}
    return {
        entry.key: KeptEntry(entry.key, entry.metadata, entry.size, entry.digest)
        for entry in candidates
        if not changes.has(entry.key)
    }
