"""How much crosses a connection."""

from __future__ import annotations

from typing import NamedTuple

from nats.aio.client import Client


class Traffic(NamedTuple):
    """What crossed a connection since it was made: messages and bytes of payload, without headers and subjects."""

    in_messages: int
    out_messages: int
    in_bytes: int
    out_bytes: int
    reconnects: int

    def with_more(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(*(a + b for a, b in zip(self, other, strict=True)))


def crossed(client: Client) -> Traffic:
    """What has crossed the connection of ``client`` so far."""
    stats = client.stats
    return Traffic(
        in_messages=stats["in_msgs"],
        out_messages=stats["out_msgs"],
        in_bytes=stats["in_bytes"],
        out_bytes=stats["out_bytes"],
        reconnects=stats["reconnects"],
    )
