"""One effect to perform, as the actions of a site are given it."""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.saga import Operation

Result = dict[str, Any]


class Call(NamedTuple):
    """One effect to perform: the operation, the step's part, and the id of this attempt."""

    operation: Operation
    part: str
    id: str
    attempt: int = 1

    @property
    def request(self) -> dict[str, Any]:
        """What the operation's acceptance kept of its command."""
        return self.operation.accepted.request
