"""The way to an S3 server: its address, TLS, and the proxy that stands between, if the environment names one.

Proxies are those of HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as boto3 understands them beside us. Over one, a server with
TLS is reached through a tunnel, so that the proxy sees neither keys nor objects.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from brokers.s3.answers import AnswerReader, Malformed
from brokers.s3.connection import Broken, Connection
from brokers.s3.places import Place
from brokers.sdk.errors import permanent_error, temporary_error

CONNECT_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A proxy that is spoken to without TLS. ``authorization`` is the header's value, or empty."""

    host: str
    port: int
    authorization: str


class Route(NamedTuple):
    """How connections are made, and how requests name the server. ``prefix`` stands before each target: what a proxy
    for plain HTTP needs to know."""

    host: str
    """The value of the Host header."""
    address: str
    port: int
    tls: ssl.SSLContext | None
    proxy: Proxy | None

    @property
    def prefix(self) -> str:
        return f"http://{self.host}" if self.proxy is not None and self.tls is None else ""

    @property
    def authorization(self) -> str:
        """What the proxy for plain HTTP wants to see in each request."""
        return self.proxy.authorization if self.proxy is not None and self.tls is None else ""

    @property
    def guarded(self) -> bool:
        """Whether nobody can change on its way what is sent: it goes through TLS, or does not leave this machine. What
        is signed of a request without its body is enough then, as Amazon's own programs have it with TLS."""
        return self.tls is not None or (self.proxy is None and _is_loopback(self.address))

    async def connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        """Raises OSError."""
        async with asyncio.timeout(CONNECT_SECONDS):
            if self.proxy is not None and self.tls is not None:
                return await self._through(self.proxy, self.tls, loop)
            address, port = (self.proxy.host, self.proxy.port) if self.proxy else (self.address, self.port)
            name = self.address if self.tls else None
            _, connection = await loop.create_connection(
                lambda: Connection(loop), address, port, ssl=self.tls, server_hostname=name
            )
            return connection

    async def _through(self, proxy: Proxy, tls: ssl.SSLContext, loop: asyncio.AbstractEventLoop) -> Connection:
        transport, tunnel = await loop.create_connection(lambda: _Tunnel(loop), proxy.host, proxy.port)
        try:
            target = f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
            more = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
            transport.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{more}\r\n".encode())
            status = await tunnel.opened
            if status == 407:
                raise permanent_error("proxy", "the proxy of HTTPS_PROXY wants another user or password")
            if status >= 300:
                raise Broken(f"the proxy of HTTPS_PROXY answered {status}")
            connection = Connection(loop)
            secured = await loop.start_tls(transport, connection, tls, server_hostname=self.address)
            if secured is None:
                raise Broken("the connection ended while TLS began")
            connection.connection_made(secured)
            return connection
        except BaseException:
            transport.abort()
            raise


class _Tunnel(asyncio.Protocol):
    """What is said with a proxy before TLS begins: ``opened`` is the status of its answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.opened: asyncio.Future[int] = loop.create_future()
        self._reader = AnswerReader()
        self._reader.expect(without_body=True)

    def data_received(self, data: bytes) -> None:
        for at in range(len(data)):
            # Byte by byte: what stands behind the answer is not for us, and there is little of it.
            self._reader.room()[:1] = data[at : at + 1]
            try:
                answer = self._reader.arrived(1)
            except Malformed as error:
                self._end(error)
                return
            if answer is not None:
                if not self.opened.done():
                    self.opened.set_result(answer.status)
                return

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(Broken(f"the proxy of HTTPS_PROXY: {error or 'it closed the connection'}"))


def route_to(place: Place, bucket: str) -> Route:
    """The way to a bucket. Raises :class:`CalqueError` that names the setting which can't be followed."""
    parts = urlsplit(place.endpoint)
    port = parts.port or _PORTS[parts.scheme]
    address = parts.hostname or ""
    if place.virtual:
        if _is_address(address):
            raise permanent_error(
                "invalid", "a bucket can't be named in front of an IP address", field="addressing", remedy="use path"
            )
        address = f"{bucket}.{address}"
    host = f"[{address}]" if ":" in address else address
    if port != _PORTS[parts.scheme]:
        host = f"{host}:{port}"
    tls = _context(place.ca_file) if parts.scheme == "https" else None
    return Route(host, address, port, tls, _proxy(parts.scheme, address, port))


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise temporary_error("unavailable", f"{ca_file}: {error.strerror or error}", field="ca_file") from None


def _proxy(scheme: str, address: str, port: int) -> Proxy | None:
    """The proxy that the environment names for this server, if any."""
    named = urllib.request.getproxies_environment().get(scheme)
    bypassed = urllib.request.proxy_bypass
    if not named or bypassed(f"{address}:{port}") or bypassed(address):
        return None
    setting = f"{scheme.upper()}_PROXY"
    try:
        parts = urlsplit(named if "://" in named else f"http://{named}")
        found = parts.port
    except ValueError:
        raise permanent_error("proxy", f"{setting} is no address of a proxy", field=setting) from None
    if parts.scheme != "http" or not parts.hostname:
        # Its address may hold a password: it is not repeated.
        raise permanent_error(
            "proxy",
            f"{setting} names a proxy that can't be used: only proxies with http:// addresses can",
            field=setting,
            remedy=f"give the address of an HTTP proxy, or name the server in NO_PROXY: {address}",
        )
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(parts.hostname, found or 80, authorization)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
