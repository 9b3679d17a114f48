"""Counts events that are set apart, by writer and reason, and keeps the last examples: for people and for metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bus.jetstream import CONSUMER_NOT_FOUND, NANOSECONDS, JetStream, JetStreamError
from schemas.envelope import timestamp
from schemas.ids import new_id
from schemas.strays import FORGED, StrayView
from schemas.subjects import events_of, inbox

EXAMPLES = 5
MOST_WRITERS = 1000
MOST_ASKED = 50
OTHERS = "others"
LONGEST = 300
NO_MESSAGE = 10037


@dataclass
class _Tally:
    count: int = 0
    last_at: str = ""
    examples: deque[str] = field(default_factory=lambda: deque(maxlen=EXAMPLES))


class Strays:
    """Counts since it was made. Writers beyond the first :data:`MOST_WRITERS` are counted together."""

    def __init__(self) -> None:
        self.since = timestamp(datetime.now(UTC))
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def note(self, *, writer: str, reason: str, example: str) -> None:
        """One more. ``reason`` is one of few words, ``example`` says which it was."""
        key = (writer, reason)
        if key not in self._tallies and len(self._tallies) >= MOST_WRITERS:
            key = (OTHERS, reason)
        tally = self._tallies.setdefault(key, _Tally())
        tally.count += 1
        tally.last_at = timestamp(datetime.now(UTC))
        tally.examples.append(example[:LONGEST])

    def counts(self) -> Mapping[tuple[str, str], int]:
        """How many, by writer and reason."""
        return {key: tally.count for key, tally in self._tallies.items()}

    def views(self) -> list[StrayView]:
        """The same with the last examples."""
        return [
            StrayView(
                writer=writer,
                reason=reason,
                count=tally.count,
                last_at=tally.last_at,
                examples=tuple(tally.examples),
            )
            for (writer, reason), tally in sorted(self._tallies.items())
        ]


async def forged(js: JetStream, site: str, *, others: Sequence[str]) -> StrayView | None:
    """What lies in a site's inbox and is not of the site's own subjects; ``None`` when there is nothing.

    ``others`` are the writers of whom examples are looked for. It is counted by what a consumer of the site's own
    subjects would not get, since no filter says "all but". Raises :class:`schemas.problems.CalqueError`.
    """
    stream = inbox(site)
    info = await js.stream(stream)
    if info is None:
        return None
    state = info["state"]
    if not state["messages"]:
        return None
    config = {
        "name": f"strays-{new_id()}",
        "filter_subject": events_of(site),
        "deliver_policy": "all",
        "ack_policy": "none",
        "mem_storage": True,
        "inactive_threshold": 5 * NANOSECONDS,
    }
    operation = f"CONSUMER.CREATE.{stream}.{config['name']}"
    made = await js.call(operation, {"stream_name": stream, "config": config, "action": "create"})
    # What came between the two questions is the site's own or is counted the next time: never too many.
    count = int(state["messages"]) - int(made.get("num_pending", 0))
    try:
        await js.call(f"CONSUMER.DELETE.{stream}.{config['name']}")
    except JetStreamError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
    if count <= 0:
        return None
    return StrayView(writer=site, reason=FORGED, count=count, examples=await _examples(js, site, others[:MOST_ASKED]))


async def _examples(js: JetStream, site: str, others: Sequence[str]) -> tuple[str, ...]:
    """The last event of each other writer that the site has forged."""
    found: list[str] = []
    for writer in others:
        try:
            answer = await js.call(f"STREAM.MSG.GET.{inbox(site)}", {"last_by_subj": events_of(writer)})
        except JetStreamError as error:
            if error.err_code != NO_MESSAGE:
                raise
            continue
        found.append(f"{answer['message']['subject']} at {answer['message']['seq']}"[:LONGEST])
        if len(found) == EXAMPLES:
            break
    return tuple(found)
