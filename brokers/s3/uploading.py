"""An object that is written in parts, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from brokers.s3.answers import Answer
from brokers.s3.pages import error_of, parts_of, upload_id
from brokers.s3.refusals import Refused, Unreachable, refusal
from brokers.s3.wire import Wire
from brokers.sdk.digests import Buffer

ABANDON_SECONDS = 2.0
COMPLETIONS = 3
LATE = frozenset({"InternalError", "SlowDown", "ServiceUnavailable"})
"""What an upload may still be completed after."""


class Row(Protocol):
    """What is under way to a bucket."""

    wire: Wire

    async def start(self, work: Coroutine[Any, Any, str], size: int) -> asyncio.Task[str]:
        """Run the work beside the others, once there is room for so many bytes."""


class Upload:
    """One object: `take` its bytes in order, then `finish`; or `abandon` it."""

    def __init__(self, row: Row, key: str, upload: str, size: int, *, part_size: int) -> None:
        self._row = row
        self._key = key
        self._query = {"uploadId": upload}
        self._size = size
        self._part_size = part_size
        self._pieces: list[Buffer] = []
        self._gathered = 0
        self._sent: list[asyncio.Task[str]] = []

    @classmethod
    async def begin(cls, row: Row, key: str, headers: Mapping[str, str], size: int, *, part_size: int) -> Upload:
        """Raises as :class:`Wire`."""
        begun = await row.wire.ask("POST", key, query={"uploads": ""}, headers=headers)
        return cls(row, key, upload_id(begun.body), size, part_size=part_size)

    async def take(self, block: Buffer) -> None:
        """The next bytes; they are kept as they are until they were sent."""
        view = memoryview(block)
        while self._gathered + len(view) >= self._part_size:
            here = self._part_size - self._gathered
            self._pieces.append(view[:here])
            self._gathered += here
            view = view[here:]
            await self._send()
        if view:
            self._pieces.append(view)
            self._gathered += len(view)

    async def finish(self) -> None:
        """The object is whole: it appears when all its parts are there. Does not wait for that."""
        try:
            if self._gathered:
                await self._send()
        except BaseException:
            await self.abandon()
            raise
        await self._row.start(self._complete(), 0)

    async def abandon(self) -> None:
        """Remove the parts, if the server lets us; else they go with the bucket."""
        for part in self._sent:
            part.cancel()
        await asyncio.gather(*self._sent, return_exceptions=True)
        try:
            async with asyncio.timeout(ABANDON_SECONDS):
                await self._row.wire.ask("DELETE", self._key, query=self._query, attempts=1)
        except (Refused, Unreachable, TimeoutError):
            return

    async def _send(self) -> None:
        pieces, size = tuple(self._pieces), self._gathered
        self._pieces, self._gathered = [], 0
        self._sent.append(await self._row.start(self._part(len(self._sent) + 1, pieces), size))

    async def _part(self, number: int, pieces: tuple[Buffer, ...]) -> str:
        query = {**self._query, "partNumber": str(number)}
        return (await self._row.wire.ask("PUT", self._key, query=query, body=pieces)).headers["etag"]

    async def _complete(self) -> str:
        try:
            answer = await self._asked_for([await part for part in self._sent])
        except Refused as error:
            if error.code == "NoSuchUpload" and await self._is_there():
                return ""  # it was completed, and the answer to that was lost
            await self.abandon()
            raise
        except BaseException:
            await self.abandon()
            raise
        return answer.headers.get("etag", "")

    async def _asked_for(self, tags: list[str]) -> Answer:
        for left in reversed(range(COMPLETIONS)):
            answer = await self._row.wire.ask("POST", self._key, query=self._query, body=parts_of(tags))
            # It may turn out later than the head of the answer that it can't be done.
            if b"<Error" not in answer.body:
                return answer
            late = error_of(answer.body)[0] in LATE
            if left == 0 or not late:
                raise refusal(answer._replace(status=500 if late else 400), f"completing {self._key}")
        raise RuntimeError("an upload is completed at least once")

    async def _is_there(self) -> bool:
        """Nobody but us writes into the bucket, so its size tells."""
        try:
            return (await self._row.wire.ask("HEAD", self._key)).headers.get("content-length") == str(self._size)
        except Refused:
            return False
