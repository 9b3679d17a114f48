"""The room in streams that refuse rather than lose: seen before it is gone, and made where something can go.

``CMD`` keeps commands after their site has them. What a site has acknowledged is of no more use there, so it is taken
away when the stream fills: a site that comes late still finds all of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bus.jetstream import CONSUMER_NOT_FOUND, JetStream, JetStreamError
from bus.streams import COMMANDS
from schemas.envelope import Envelope
from schemas.room import Fill, RoomQuery, RoomView, StreamFill
from schemas.subjects import HUB, outbox, site_commands

logger = logging.getLogger(__name__)

TIDY_SHARE = 4


class HubRoom:
    """The streams that the hub writes to. :meth:`look` renews what is known."""

    def __init__(self, js: JetStream, *, sites: Sequence[str]) -> None:
        self._js = js
        self._sites = tuple(sites)
        self._fills: tuple[Fill, ...] = ()

    async def look(self) -> None:
        """Ask how full they are, and make room in ``CMD``. Raises :class:`schemas.problems.CalqueError`."""
        fills = []
        for stream in (outbox(HUB), COMMANDS):
            fill = await fill_of(self._js, stream)
            if stream == COMMANDS and fill.limit is not None and fill.used > fill.limit // TIDY_SHARE:
                await self._tidy()
                fill = await fill_of(self._js, stream)
            fills.append(fill)
        self._fills = tuple(fills)

    def full(self) -> Fill | None:
        """A stream that is nearly full, if one is."""
        return next((fill for fill in self._fills if fill.low), None)

    async def room(self, _query: RoomQuery, _envelope: Envelope) -> RoomView:
        """``room``"""
        found = []
        offset, total = 0, 1
        while offset < total:
            page = await self._js.call("STREAM.LIST", {"offset": offset})
            total = int(page.get("total", 0))
            infos = page.get("streams") or ()
            offset += len(infos) or total
            for info in infos:
                limit = int(info["config"].get("max_bytes", -1))
                found.append(
                    StreamFill(
                        stream=info["config"]["name"],
                        used=int(info["state"]["bytes"]),
                        limit=limit if limit > 0 else None,
                        refuses=info["config"].get("discard") == "new",
                    )
                )
        return RoomView(streams=tuple(sorted(found, key=lambda each: each.stream)))

    async def _tidy(self) -> None:
        """Take away the commands that their sites have acknowledged."""
        taken = 0
        for site in self._sites:
            try:
                info = await self._js.call(f"CONSUMER.INFO.{COMMANDS}.{site}")
            except JetStreamError as error:
                if error.err_code != CONSUMER_NOT_FOUND:
                    raise
                continue
            floor = int(info["ack_floor"]["stream_seq"])
            if floor:
                wanted = {"filter": site_commands(site), "seq": floor + 1}
                taken += int((await self._js.call(f"STREAM.PURGE.{COMMANDS}", wanted)).get("purged", 0))
        if taken:
            logger.info("%d commands that their sites have were taken from stream %s", taken, COMMANDS)


async def fill_of(js: JetStream, stream: str) -> Fill:
    """How full a stream is. Raises :class:`schemas.problems.CalqueError`."""
    info = await js.call(f"STREAM.INFO.{stream}")
    limit = int(info["config"].get("max_bytes", -1))
    return Fill(HUB, stream, int(info["state"]["bytes"]), limit if limit > 0 else None)
