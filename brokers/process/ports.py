"""Ports for app services: picked free once, then the service's own for as long as it exists."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from brokers.sdk.errors import temporary_error

HOST = "127.0.0.1"
# Below what the kernel gives to outgoing connections (32768 and up): no client takes one between two starts.
LOWEST = 20_000
HIGHEST = 31_999


def is_free(port: int) -> bool:
    """Whether a service could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT are no hindrance
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def pick(taken: Collection[int]) -> int:
    """A free port that is not in ``taken``. Raises the temporary problem ``no_port``."""
    for _ in range(1000):
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311 - spreads brokers apart, keeps no secret
        if port not in taken and is_free(port):
            return port
    raise temporary_error("no_port", f"no free port between {LOWEST} and {HIGHEST}", retry_after_seconds=10.0)
