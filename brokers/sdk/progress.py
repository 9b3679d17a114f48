"""How far a long operation is: kept for ``status``, and told to whoever listens, a few times a second at most."""

from __future__ import annotations

from collections.abc import Callable

from schemas.brokers import BytesDone

INTERVAL_SECONDS = 0.2

Tell = Callable[[BytesDone], None]


class Reporter:
    """What the work of a long operation is given: a place to say how far it is, in bytes.

    ``cancelling`` tells the clean-up of cancelled work whether somebody asked for it to be undone; when it is
    false the broker is stopping, and the same request will come again.
    """

    def __init__(self, *, tell: Tell, clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._told_at: float | None = None
        self._told: BytesDone | None = None
        self.latest: BytesDone | None = None
        self.cancelling = False

    def report(self, *, done: int, total: int | None = None, message: str = "") -> None:
        """``done`` of ``total`` bytes are through. Cheap: may be called for every block."""
        self.latest = BytesDone(done=done, total=total, message=message)
        now = self._clock()
        if self._told_at is None or now - self._told_at >= INTERVAL_SECONDS:
            self._told_at = now
            self._send()

    def flush(self) -> None:
        """Tell the last report, if the interval held it back."""
        self._send()

    def _send(self) -> None:
        if self.latest is not None and self.latest != self._told:
            self._told = self.latest
            self._tell(self.latest)
