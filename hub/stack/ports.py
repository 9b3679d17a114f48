"""Port numbers: picked free once, remembered, picked anew only when somebody else has taken one.

Numbers come from below the range that the kernel gives to outgoing connections (32768 and up), so
that no client's source port can take one between two starts. SeaweedFS listens on port + 10000 too;
its ports ask for that number with `offsets`.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from pathlib import Path

from hub.stack.errors import StackError
from hub.stack.files import private_directory, read_json, write_json

LOOPBACK = "127.0.0.1"
LOWEST = 10_000
HIGHEST = 31_999
PAIRED_HIGHEST = 21_999  # + 10000 stays inside the range as well
SEAWEEDFS_GRPC_OFFSET = 10_000


def is_free(port: int) -> bool:
    """True when nobody listens on the port at the loopback address or at all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A connection of an earlier run in TIME_WAIT is no reason to move.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


class Ports:
    """The ports of one home, by name, kept in a JSON file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        known = read_json(file) or {}
        self._known: dict[str, int] = {str(name): int(port) for name, port in known.items()}
        self._claimed: set[int] = set()

    def pick(self, name: str, *, offsets: Sequence[int] = (0,)) -> int:
        """The remembered port, if it is free at all its offsets; else a new one, which is remembered.

        Call it only while the part that uses the port is stopped. Raises `StackError` when no port is free.
        """
        remembered = self._known.get(name)
        if remembered is not None and self._usable(remembered, offsets, but_for=name):
            self._claim(remembered, offsets)
            return remembered
        highest = PAIRED_HIGHEST if any(offsets) else HIGHEST
        for _ in range(2_000):
            candidate = random.randint(LOWEST, highest)  # noqa: S311 - spreads stacks apart, keeps no secret
            if self._usable(candidate, offsets, but_for=name):
                self._claim(candidate, offsets)
                self._known[name] = candidate
                private_directory(self._file.parent)
                write_json(self._file, self._known)
                return candidate
        raise StackError(f"no free port for {name} between {LOWEST} and {highest}: stop what listens there")

    def _usable(self, port: int, offsets: Sequence[int], *, but_for: str) -> bool:
        others = {known for name, known in self._known.items() if name != but_for}
        wanted = [port + offset for offset in offsets]
        return not any(number in self._claimed or number in others for number in wanted) and all(
            is_free(number) for number in wanted
        )

    def _claim(self, port: int, offsets: Sequence[int]) -> None:
        self._claimed.update(port + offset for offset in offsets)
