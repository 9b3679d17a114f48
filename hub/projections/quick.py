"""Taking events in as they lie in the stream, very many of them, at the cost of little more than reading them.

It comes to the same as :meth:`~hub.projections.state.Projections.apply` of what :func:`bus.records.record` makes of
them: whatever is not plainly an event that its writer may write goes that way.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from bus.quick import QuickEvent, quick_decoders
from bus.records import Recorded, record
from hub.projections.state import Fold, Projections, may_write, touch
from schemas.envelope import MAX_EVENT_BYTES
from schemas.events import Event
from schemas.registry import MESSAGES
from schemas.subjects import HUB

Key = tuple[str, str]
EVENTS = {(each.AGGREGATE, each.EVENT): each for each in MESSAGES.values() if issubclass(each, Event)}
Reading = tuple[Callable[[bytes], QuickEvent], Fold | None]


class QuickFold:
    """Folds into ``state``. ``last`` is sequence and id of the last event that was taken in."""

    def __init__(self, state: Projections) -> None:
        self.state = state
        self.last: tuple[int, str] | None = None
        self._writers: dict[str, str] = {}
        self._of_hub: dict[Key, Reading] = {}
        self._of_sites: dict[Key, Reading] = {}
        for key, decoder in quick_decoders().items():
            fold = state.folds.get(key[0])
            if key[0] == "operation":
                fold = state.operations.fold_of(EVENTS[key])
            reading = (decoder.decode, fold)
            if may_write(HUB, key[0]):
                self._of_hub[key] = reading
            if may_write("a-site", key[0]):
                self._of_sites[key] = reading

    def take(self, batch: Sequence[tuple[int, str, bytes]]) -> list[Recorded]:
        """Take in messages: sequence, subject and payload of each, in the order of the stream. Those are returned that
        their writer may not have written."""
        refused: list[Recorded] = []
        state, stopped, taken = self.state, self.state.stopped, self.state.taken
        writers, of_hub, of_sites = self._writers, self._of_hub, self._of_sites
        at, newest = 0, None
        for sequence, subject, payload in batch:
            try:
                root, kind, site, aggregate, id, name = subject.split(".")
                decode, fold = (of_hub if site == HUB else of_sites)[aggregate, name]
                # Rows keep the writer's name: one text for all of them.
                writer = writers[site]
                said = decode(payload)
            except (ValueError, KeyError, msgspec.DecodeError, RecursionError):
                self._slowly(sequence, subject, payload, refused)
                continue
            if said.source != writer or kind != "evt" or root != "calque" or len(payload) > MAX_EVENT_BYTES:
                self._slowly(sequence, subject, payload, refused)
                continue
            taken[writer] += 1
            if state.touched is not None:
                touch(state.touched, aggregate, writer, id, said.causationid)
            at, newest = sequence, said
            if fold is not None and not (stopped and (writer, aggregate, id) in stopped):
                fold(writer, id, said.data, said.time, said.operationid, said.causationid)
        if newest is not None and (self.last is None or at > self.last[0]):
            self.last = (at, newest.id)
        if batch:
            state.position = batch[-1][0]
        return refused

    def _slowly(self, sequence: int, subject: str, payload: bytes, refused: list[Recorded]) -> None:
        recorded = record(sequence=sequence, subject=subject, payload=payload)
        if recorded.refused is not None:
            refused.append(recorded)
            return
        self.state.apply((recorded,))
        self._writers[recorded.writer] = recorded.writer
        self.last = (sequence, recorded.envelope.id)


@contextmanager
def no_collection() -> Iterator[None]:
    """No garbage is collected meanwhile, nor is what was made meanwhile looked at by later collections: a replay makes
    millions of objects that stay."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
