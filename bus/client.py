"""nats-py's client with one leak closed: an attempt to reconnect that fails half-way leaves its socket open."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client, Srv


class BusClient(Client):
    """A client that closes what an earlier attempt opened before it opens the next."""

    async def _connect_to_server(self, s: Srv) -> None:
        earlier: Any = self._transport  # its methods carry no types
        if earlier:
            earlier.close()
        await super()._connect_to_server(s)
