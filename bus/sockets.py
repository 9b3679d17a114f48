"""A plain blocking connection to NATS, for a thread of its own that reads much: connect, sign in, send.

Reading a million events through asyncio costs three times what taking them off a socket does. Who needs a connection
that heals uses :class:`bus.connection.Bus`; this one ends at the first doubt, with :class:`ConnectionLost`.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from bus.connection import BusSettings
from bus.dialling import DEFAULT_PORT
from bus.tokens import TokenKey

RECEIVE_BYTES = 64 << 10
"""What is made of so much finds it in the processor's cache; with more, reading takes a third longer."""
CONNECT_SECONDS = 5.0
_JWT = re.compile(r"BEGIN NATS USER JWT-+\s*(\S+)")
_SEED = re.compile(r"BEGIN USER NKEY SEED-+\s*(\S+)")


class ConnectionLost(Exception):
    """The connection can't be made, or not be trusted any more."""


class _Info(msgspec.Struct):
    nonce: str = ""
    tls_required: bool = False
    max_payload: int = 1 << 20


class BlockingConnection:
    """One connection to one of the servers in ``settings``. Not for several threads. To be closed with :meth:`close`.

    Nothing that it receives is understood here: :meth:`receive` gives the bytes.
    """

    def __init__(self, settings: BusSettings, *, silence_seconds: float) -> None:
        """Connects. Raises :class:`ConnectionLost` when no server takes it."""
        causes: list[str] = []
        for server in settings.servers:
            try:
                self._socket, self._rest = _connect(server, settings)
            except (OSError, ValueError, ConnectionLost) as error:
                causes.append(f"{_shown(server)}: {error}")
            else:
                self._socket.settimeout(silence_seconds)
                return
        raise ConnectionLost("; ".join(causes) or "no server is named")

    def send(self, *commands: bytes) -> None:
        """Send commands of the protocol, each with its line end. Raises :class:`ConnectionLost`."""
        try:
            self._socket.sendall(b"".join(commands))
        except OSError as error:
            raise ConnectionLost(f"sending: {error}") from error

    def receive(self) -> bytes:
        """The next bytes, at least one. Raises :class:`ConnectionLost`, after a silence too."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        try:
            received = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise ConnectionLost(f"receiving: {error}") from error
        if not received:
            raise ConnectionLost("the server closed the connection")
        return received

    def abort(self) -> None:
        """Have whoever sends or receives now, in another thread, find the connection lost."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def publish(subject: str, payload: bytes, *, reply: str = "") -> bytes:
    """The command that publishes without headers."""
    head = f"PUB {subject} {reply} {len(payload)}" if reply else f"PUB {subject} {len(payload)}"
    return b"%b\r\n%b\r\n" % (head.encode(), payload)


def _connect(server: str, settings: BusSettings) -> tuple[socket.socket, bytes]:
    """A connection that the server has taken, and what came behind its answer."""
    url = urlsplit(server if "//" in server else f"nats://{server}")
    host = url.hostname or "localhost"
    raw = socket.create_connection((host, url.port or DEFAULT_PORT), timeout=CONNECT_SECONDS)
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line, rest = _line(raw.recv, b"")
        if not line.startswith(b"INFO "):
            raise ConnectionLost(f"it says {line[:40]!r}, which is no NATS")
        info = msgspec.json.decode(line[5:], type=_Info)
        if info.tls_required or url.scheme == "tls":
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        raw.sendall(b"CONNECT %b\r\nPING\r\n" % msgspec.json.encode(_options(url, settings, nonce=info.nonce)))
        while True:
            line, rest = _line(raw.recv, rest)
            if line.startswith(b"-ERR"):
                raise ConnectionLost(line[5:].decode(errors="replace"))
            if line == b"PONG":
                return raw, rest
    except BaseException:
        raw.close()
        raise


def _line(receive: Callable[[int], bytes], rest: bytes) -> tuple[bytes, bytes]:
    """The next line, and what came behind it."""
    while b"\r\n" not in rest:
        received = receive(4096)
        if not received:
            raise ConnectionLost("the server closed the connection")
        rest += received
    line, _, rest = rest.partition(b"\r\n")
    return line, rest


def _options(url: SplitResult, settings: BusSettings, *, nonce: str) -> dict[str, Any]:
    """What ``CONNECT`` says: who we are, and the proof of it."""
    options: dict[str, Any] = {
        "verbose": False,
        "pedantic": False,
        "lang": "python3",
        "version": "1",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
        "name": f"{settings.name}-reader",
    }
    if settings.credentials_file is not None:
        text = Path(settings.credentials_file).read_text()
        jwt, seed = _JWT.search(text), _SEED.search(text)
        if jwt is None or seed is None:
            raise ConnectionLost(f"{settings.credentials_file} is no file of credentials")
        options |= {"jwt": jwt[1], "sig": _signature(seed[1], nonce)}
    elif settings.nkey_seed_file is not None:
        seed_text = Path(settings.nkey_seed_file).read_text().strip()
        options |= {"nkey": TokenKey(seed_text).public, "sig": _signature(seed_text, nonce)}
    elif url.username is not None and url.password is not None:
        options |= {"user": unquote(url.username), "pass": unquote(url.password)}
    elif url.username is not None:
        options["auth_token"] = unquote(url.username)
    return options


def _signature(seed: str, nonce: str) -> str:
    return base64.b64encode(TokenKey(seed).sign(nonce.encode())).decode()


def _shown(server: str) -> str:
    """A server's address without what proves who we are."""
    return server.rpartition("@")[2]
