"""Which events are about an app: its own, and what operations on it wrote.

The events of an app instance stand under its id. Copies, images, operations and answers to commands have ids of their
own: they are about an app when they name it (`instance`, `target`), or when the operation that wrote them does. What
an operation is about says its `accepted` event, or the hub when that was read before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection

from bus.records import Recorded
from schemas.events import OperationAccepted
from schemas.queries import OperationView

REMEMBERED = 10_000
Look = Callable[[str], Awaitable[OperationView | None]]


class AppEvents:
    """Says which events are about one of ``apps`` (ids). ``look`` asks the hub for an operation."""

    def __init__(self, apps: Collection[str], *, look: Look) -> None:
        self._apps = frozenset(apps)
        self._look = look
        self._operations: OrderedDict[str, bool] = OrderedDict()

    async def takes(self, event: Recorded) -> bool:
        """Whether the event is about one of them."""
        if event.id in self._apps:
            return True
        named = (getattr(event.event, "instance", None), getattr(event.event, "target", None))
        about = any(name in self._apps for name in named)
        operation = event.id if event.aggregate == "operation" else event.envelope.operationid
        if isinstance(event.event, OperationAccepted):
            about = about or (event.event.parent is not None and await self._of(event.event.parent))
            self._remember(event.id, about)
        if about or operation is None:
            return about
        return await self._of(operation)

    async def _of(self, operation: str) -> bool:
        if operation not in self._operations:
            view = await self._look(operation)
            about = view is not None and view.target in self._apps
            if view is not None and not about and view.parent is not None:
                about = await self._of(view.parent)
            self._remember(operation, about)
        return self._operations[operation]

    def _remember(self, operation: str, about: bool) -> None:
        self._operations[operation] = about
        self._operations.move_to_end(operation)
        while len(self._operations) > REMEMBERED:
            self._operations.popitem(last=False)
