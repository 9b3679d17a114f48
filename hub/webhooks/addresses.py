"""Where deliveries may go. A webhook's URL is somebody's wish; without leave it must not reach what only this machine
or its network can reach (server-side request forgery), also not by a name that resolves there."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL


class NotAllowed(OSError):
    """The address is not one that deliveries may go to."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses alone; what is connected to is what was looked at."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises ``OSError``."""
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if is_public(each["host"])]
        if not public:
            raise NotAllowed(f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Nothing to let go of."""
        await self._resolver.close()


def check(url: URL) -> None:
    """Raise :class:`NotAllowed` for a URL with an address in it that is not public; names are the resolver's."""
    host = url.host or ""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if not is_public(host):
        raise NotAllowed(f"{host} is no public address")


def is_public(address: str) -> bool:
    """Whether anybody on the internet could mean this address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_global and not (mapped or found).is_multicast
