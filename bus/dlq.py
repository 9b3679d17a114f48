"""Dead letters: messages that could not be handled, kept with the reason, for people to look at."""

from __future__ import annotations

from bus.connection import Bus
from bus.jetstream import JetStream

STREAM = "DLQ"
SUBJECTS = "calque.dlq.>"
MAX_REASON = 500


async def bury(
    bus: Bus, *, stream: str, consumer: str, sequence: int, subject: str, payload: bytes, delivered: int, reason: str
) -> None:
    """Store a copy under ``calque.dlq.<stream>.<consumer>``; the same message twice is stored once.

    Raises :class:`schemas.problems.CalqueError` when it could not be stored.
    """
    await JetStream(bus).publish(
        f"calque.dlq.{stream}.{consumer}",
        payload,
        headers={
            "Nats-Msg-Id": f"{stream}/{consumer}/{sequence}",
            "Calque-Reason": " ".join(reason.split())[:MAX_REASON].encode("ascii", "replace").decode(),
            "Calque-Subject": subject,
            "Calque-Stream": stream,
            "Calque-Sequence": str(sequence),
            "Calque-Delivered": str(delivered),
        },
    )
