"""How several tables lie in one part of a copy: for each its rows in blocks, with the length of each block in front
(four bytes, big endian), and a block of no bytes at the end. The directory says which table comes when."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

from brokers.sdk.digests import Buffer
from brokers.sdk.errors import permanent_error

_LENGTH = struct.Struct(">I")
END = _LENGTH.pack(0)


async def framed(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The rows of one table on their way into a part."""
    async for block in blocks:
        yield _LENGTH.pack(len(block)) + block
    yield END


class Unframer:
    """Reads a part table by table. ``blocks`` is asked for its bytes as they are needed."""

    def __init__(self, blocks: AsyncIterator[Buffer], *, part: str) -> None:
        self._blocks = blocks
        self._part = part
        self._have = bytearray()

    async def next_table(self) -> AsyncIterator[bytes]:
        """The rows of the next table."""
        while True:
            await self._need(_LENGTH.size)
            (length,) = _LENGTH.unpack_from(self._have)
            del self._have[: _LENGTH.size]
            if length == 0:
                return
            await self._need(length)
            block = bytes(memoryview(self._have)[:length])
            del self._have[:length]
            yield block

    async def finish(self) -> None:
        """All was read: the part ends here, and its reader has checked it."""
        async for block in self._blocks:
            self._have += block
        if self._have:
            raise _damaged(self._part)

    async def _need(self, count: int) -> None:
        while len(self._have) < count:
            try:
                self._have += await anext(self._blocks)
            except StopAsyncIteration:
                raise _damaged(self._part) from None


def _damaged(part: str) -> Exception:
    return permanent_error("wrong_copy", f"part {part!r} does not hold the tables that the copy lists", field="restore")
