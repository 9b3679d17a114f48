"""nats-py's client with two things mended and one made quicker.

An attempt to reconnect that fails half-way leaves its socket open; and requests under way when the connection breaks
wait for their whole timeout, though no reply can come any more. Headers are parsed when somebody asks for them:
readers of streams don't, and parsing took a third of their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from nats.aio.client import Client, Srv
from nats.errors import StaleConnectionError

SPACE = 0x20
STATUS_AT = len(b"NATS/1.0")


class LazyHeaders(Mapping[str, str]):
    """The headers of one message."""

    def __init__(self, raw: bytes, parse: Callable[[bytes], dict[str, str]]) -> None:
        self._raw = raw
        self._parse = parse

    @cached_property
    def _parsed(self) -> dict[str, str]:
        return self._parse(self._raw)

    def __getitem__(self, key: str) -> str:
        return self._parsed[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed)

    def __len__(self) -> int:
        return len(self._parsed)

    def __bool__(self) -> bool:
        return True


class BusClient(Client):
    """A client that closes what an earlier attempt opened before it opens the next."""

    async def _connect_to_server(self, s: Srv) -> None:
        earlier: Any = self._transport  # its methods carry no types
        if earlier:
            earlier.close()
        await super()._connect_to_server(s)

    async def _process_headers(self, headers: Any) -> Any:
        if not headers or headers[STATUS_AT] == SPACE:
            return await super()._process_headers(headers)
        return LazyHeaders(bytes(headers), self._parse_header_lines)

    def fail_requests(self) -> None:
        """Have every request that waits for its reply raise ``StaleConnectionError``."""
        for future in list(self._resp_map.values()):
            if not future.done():
                future.set_exception(StaleConnectionError())
