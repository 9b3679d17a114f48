"""nats-py's client with two things mended.

An attempt to reconnect that fails half-way leaves its socket open; and requests under way when the connection breaks
wait for their whole timeout, though no reply can come any more.
"""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client, Srv
from nats.errors import StaleConnectionError


class BusClient(Client):
    """A client that closes what an earlier attempt opened before it opens the next."""

    async def _connect_to_server(self, s: Srv) -> None:
        earlier: Any = self._transport  # its methods carry no types
        if earlier:
            earlier.close()
        await super()._connect_to_server(s)

    def fail_requests(self) -> None:
        """Have every request that waits for its reply raise ``StaleConnectionError``."""
        for future in list(self._resp_map.values()):
            if not future.done():
                future.set_exception(StaleConnectionError())
