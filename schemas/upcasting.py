"""Upcasters: how the data of an event type of an older version becomes that of the type which replaced it.

An event that is stored is never changed. When its shape can't be extended (a new field has a default; see
``docs/messages.md``), the event gets a new type, ``.v2``, the Struct of ``.v1`` goes, and one function that turns old
data into new is registered here. All readers decode through :func:`bus.records.record`, which asks this registry only
for types that have no Struct: reading what is current costs nothing.

A step leads from one type to the next, and steps chain: data of ``.v1`` passes the step to ``.v2``, then that to
``.v3``. Steps are pure, and total over whatever the old version wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

Data = dict[str, Any]
Convert = Callable[[Data], Data]


class Step(NamedTuple):
    """Data of one type becomes data of ``type`` by ``convert``."""

    type: str
    convert: Convert


class Upcasters:
    """The steps that are known: old type -> :class:`Step`."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}

    def register(self, old: str, new: str, convert: Convert) -> None:
        """Data of type ``old`` is read as ``new``. Raises :class:`ValueError` for a second step, or one that would lead
        back to where it began, or into another aggregate: an event stays on the subject that it was stored on."""
        if old in self.steps:
            raise ValueError(f"{old} has an upcaster already")
        if aggregate_of(old) != aggregate_of(new):
            raise ValueError(f"{old} can't become {new}: that is an event of another aggregate")
        if self.newest(new) == old:
            raise ValueError(f"{old} would become itself")
        self.steps[old] = Step(new, convert)

    def newest(self, type: str) -> str:
        """The type that ``type`` becomes in the end: itself without a step."""
        while (step := self.steps.get(type)) is not None:
            type = step.type
        return type

    def upcast(self, type: str, data: bytes | msgspec.Raw) -> tuple[str, Data]:
        """The newest type for ``type``, and ``data`` (JSON) in its shape.

        Raises ``msgspec.DecodeError``, and whatever a step raises over data that no version ever wrote.
        """
        shape: Data = msgspec.json.decode(data, type=dict[str, Any])
        while (step := self.steps.get(type)) is not None:
            type, shape = step.type, step.convert(shape)
        return type, shape


def aggregate_of(type: str) -> str:
    """``copy`` of ``calque.event.copy.prepared.v1``."""
    parts = type.split(".")
    return parts[2] if len(parts) == 5 and parts[:2] == ["calque", "event"] else ""


UPCASTERS = Upcasters()
"""Those of the product. Empty: no event type was ever replaced."""
