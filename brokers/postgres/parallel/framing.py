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
        yield _LENGTH.pack(len(block))
        yield block
    yield END


class Unframer:
    """Reads a part table by table. ``blocks`` is asked for its bytes as they are needed."""

    def __init__(self, blocks: AsyncIterator[Buffer], *, part: str) -> None:
        self._blocks = blocks
        self._part = part
        self._have = memoryview(b"")

    async def next_table(self) -> AsyncIterator[memoryview]:
        """The rows of the next table, in pieces as they come."""
        while length := await self._length():
            while length:
                if not self._have:
                    await self._more()
                piece, self._have = self._have[:length], self._have[length:]
                length -= len(piece)
                yield piece

    async def finish(self) -> None:
        """All was read: the part ends here, and its reader has checked it."""
        rest = len(self._have)
        async for block in self._blocks:
            rest += len(block)
        if rest:
            raise _damaged(self._part)

    async def _length(self) -> int:
        """Of the next block."""
        head = b""
        while len(head) < _LENGTH.size:
            if not self._have:
                await self._more()
            missing = _LENGTH.size - len(head)
            head, self._have = head + bytes(self._have[:missing]), self._have[missing:]
        return int(_LENGTH.unpack(head)[0])

    async def _more(self) -> None:
        try:
            self._have = memoryview(await anext(self._blocks))
        except StopAsyncIteration:
            raise _damaged(self._part) from None


def _damaged(part: str) -> Exception:
    return permanent_error("wrong_copy", f"part {part!r} does not hold the tables that the copy lists", field="restore")
