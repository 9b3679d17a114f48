"""Which app an event is about: the instance that it happened to, or that its operation works on."""

from __future__ import annotations

from collections import OrderedDict

from bus.jetstream import JetStream
from bus.kept import Shelf
from bus.records import Recorded, record
from schemas.events import InstanceDeploying, OperationAccepted

REMEMBERED = 10_000


class Origins:
    """Looks into the record, and remembers what it found: neither of the two events that it needs ever changes."""

    def __init__(self, js: JetStream, *, stream: str) -> None:
        self._events = Shelf(js, stream)
        self._names: OrderedDict[str, frozenset[str]] = OrderedDict()

    async def apps(self, event: Recorded) -> frozenset[str]:
        """Names and ids of the instances that the event is about."""
        if event.aggregate == "instance":
            return await self._instance(event.id)
        operation = event.id if event.aggregate == "operation" else event.envelope.operationid
        if operation is None:
            return frozenset()
        return await self._operation(event.writer, operation.partition("/")[0])

    async def _instance(self, id: str) -> frozenset[str]:
        if id not in self._names:
            found = await self._first(f"calque.evt.*.instance.{id}.deploying")
            names = {id}
            if found is not None and isinstance(found.event, InstanceDeploying):
                names.add(found.event.name)
            else:
                return frozenset(names)  # not yet there: look again next time
            self._remember(id, frozenset(names))
        return self._names[id]

    async def _operation(self, writer: str, id: str) -> frozenset[str]:
        key = f"{writer}/{id}"
        if key not in self._names:
            found = await self._first(f"calque.evt.{writer}.operation.{id}.accepted")
            if found is None or not isinstance(found.event, OperationAccepted):
                return frozenset()
            names = set(await self._instance(found.event.target))
            instance = found.event.request.get("instance")
            if isinstance(instance, str):
                names |= await self._instance(instance)
            self._remember(key, frozenset(names))
        return self._names[key]

    async def _first(self, subject: str) -> Recorded | None:
        stored = await self._events.next(subject)
        if stored is None:
            return None
        return record(sequence=stored.sequence, subject=stored.subject, payload=stored.payload)

    def _remember(self, key: str, names: frozenset[str]) -> None:
        self._names[key] = names
        if len(self._names) > REMEMBERED:
            self._names.popitem(last=False)
