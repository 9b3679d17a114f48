"""App instances as their sites tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from hub.projections.sharing import SharedTemplates
from schemas import events as ev
from schemas.configuration import without_parts
from schemas.events import Event, InstanceDeploying
from schemas.values import DataServiceSpec, DataServiceState, InstanceState, Origin, ServiceState


class ServiceRow(msgspec.Struct, kw_only=True):
    """An app service; ``healthy`` is what the platform's probe said last."""

    state: ServiceState = "pending"
    healthy: bool = False
    url: str | None = None
    broker: str | None = None
    message: str = ""


class DataServiceRow(msgspec.Struct, kw_only=True):
    """A data service. ``spec`` is ``None`` until an event has told of it, ``healthy`` until one of its health has."""

    state: DataServiceState = "pending"
    spec: DataServiceSpec | None = None
    broker: str | None = None
    plan: str | None = None
    resource: dict[str, str] = {}
    binding: dict[str, str] = {}
    secret_refs: dict[str, str] = {}
    copy: str | None = None
    origin: Origin = "provisioned"
    healthy: bool | None = None
    message: str = ""
    method: str = ""


Key = tuple[str, str]


class AppRow(msgspec.Struct, kw_only=True):
    """An instance. ``deploying`` is ``None`` for parts of no known app; ``cleaned`` when nothing of it is left."""

    site: str
    id: str
    deploying: InstanceDeploying | None = None
    state: InstanceState = "pending"
    url: str | None = None
    message: str = ""
    cleaned: bool = False
    services: dict[str, ServiceRow] = {}
    data_services: dict[str, DataServiceRow] = {}
    operation: str | None = None
    created_at: str = ""
    changed_at: str = ""

    @property
    def gone(self) -> bool:
        """Whether nothing of it exists any more."""
        return self.state == "deleted" or (self.state == "failed" and self.cleaned)

    @property
    def name(self) -> str | None:
        """The name that it has; ``None`` when it is gone, or not known."""
        return None if self.deploying is None or self.gone else self.deploying.name


class Apps:
    """All instances of all sites, also those that are gone."""

    def __init__(self, shared: SharedTemplates) -> None:
        self._shared = shared
        self.rows: dict[Key, AppRow] = {}
        self.by_id: dict[str, tuple[Key, ...]] = {}
        self.by_name: dict[str, tuple[Key, ...]] = {}
        """Name -> those that bear it and are not gone."""

    def index(self) -> None:
        """Make what follows from the rows, after they were loaded."""
        for key, row in self.rows.items():
            if row.deploying is not None:
                self._share(row.deploying)
            self._note_id(key)
            self._renamed(key, None, row.name)

    def apply(self, site: str, id: str, event: Event, time: str, operation: str | None, _causation: str | None) -> None:
        """Take in one event of an instance."""
        row = self.rows.get((site, id))
        if row is None:
            row = self.rows[site, id] = AppRow(site=site, id=id, created_at=time, operation=operation)
            self._note_id((site, id))
        row.changed_at = time
        change = _PART.get(type(event))
        if change is not None:
            change(row, event)
            return
        if type(event) is InstanceDeploying:
            self._share(event)
        change = _WHOLE.get(type(event))
        if change is not None:
            before = row.name
            change(row, event)
            if (now := row.name) != before:
                self._renamed((site, id), before, now)

    def with_id(self, id: str) -> list[AppRow]:
        """The instances with this id: one, unless two sites claim the same."""
        rows = map(self.rows.__getitem__, self.by_id.get(id, ()))
        return [row for row in rows if row.deploying is not None]

    def find(self, name_or_id: str) -> list[AppRow]:
        """The instances with this id, else those that bear this name and are not gone."""
        if found := self.with_id(name_or_id):
            return found
        return [self.rows[key] for key in self.by_name.get(name_or_id, ())]

    def _share(self, event: InstanceDeploying) -> None:
        """Have it refer to a template that was there before: it stays what it was."""
        msgspec.structs.force_setattr(event, "template", self._shared.one(event.template))

    def _note_id(self, key: Key) -> None:
        self.by_id[key[1]] = (*self.by_id.get(key[1], ()), key)

    def _renamed(self, key: Key, before: str | None, now: str | None) -> None:
        """A row bears another name; ``None``: none, because it is gone or not known."""
        if before is not None:
            left = tuple(each for each in self.by_name[before] if each != key)
            if left:
                self.by_name[before] = left
            else:
                del self.by_name[before]
        if now is not None:
            self.by_name[now] = (*self.by_name.get(now, ()), key)

    def known(self) -> Iterator[AppRow]:
        """The instances that are known as such."""
        return (row for row in self.rows.values() if row.deploying is not None)

    def unassigned(self) -> list[str]:
        """``<site>/<instance>/<service>`` of services that belong to no known app."""
        return sorted(
            f"{row.site}/{row.id}/{name}"
            for row in self.rows.values()
            if row.deploying is None
            for name, service in row.services.items()
            if service.state != "removed"
        )


# What an event changes: of the instance as a whole ...


def _deploying(row: AppRow, event: ev.InstanceDeploying) -> None:
    template = without_parts(event.template, event.without)
    row.deploying, row.state = event, "deploying"
    for name in () if event.adopted else template.services:
        if name not in row.services:
            row.services[name] = ServiceRow(broker=event.brokers.get(name))
    for name, spec in template.data_services.items():
        if name not in row.data_services:
            row.data_services[name] = DataServiceRow(
                state="restoring" if event.image else "provisioning",
                spec=spec,
                broker=event.brokers.get(name),
                plan=event.plans.get(name),
                copy=event.copies.get(name),
                origin="attached" if name in event.attached else "provisioned",
            )


def _running(row: AppRow, event: ev.InstanceRunning) -> None:
    row.state, row.url, row.message = "running", event.url, ""


def _degraded(row: AppRow, event: ev.InstanceDegraded) -> None:
    row.state, row.message = "degraded", event.message


def _stopping(row: AppRow, _event: ev.InstanceStopping) -> None:
    row.state = "stopping"
    _services(row, ("running",), "stopping")


def _stopped(row: AppRow, _event: ev.InstanceStopped) -> None:
    row.state, row.message = "stopped", ""
    _services(row, ("running", "stopping"), "stopped")


def _starting(row: AppRow, _event: ev.InstanceStarting) -> None:
    row.state = "starting"
    _services(row, ("stopped", "stopping"), "deploying")


def _deleting(row: AppRow, _event: ev.InstanceDeleting) -> None:
    row.state = "deleting"
    _services(row, ("running",), "stopping")


def _deleted(row: AppRow, _event: ev.InstanceDeleted) -> None:
    row.state, row.url = "deleted", None
    for service in row.services.values():
        service.state, service.healthy = "removed", False
    for data in row.data_services.values():
        data.state = "detached" if data.origin == "attached" else "removed"
        data.binding, data.secret_refs = {}, {}


def _failed(row: AppRow, event: ev.InstanceFailed) -> None:
    row.state, row.message, row.cleaned = "failed", event.problem.sentence(), event.cleaned
    if event.cleaned:
        row.url = None


def _services(row: AppRow, states: tuple[ServiceState, ...], after: ServiceState) -> None:
    for service in row.services.values():
        if service.state in states:
            service.state, service.healthy = after, False


_WHOLE: dict[type[Event], Callable[[AppRow, Any], None]] = {
    ev.InstanceDeploying: _deploying,
    ev.InstanceRunning: _running,
    ev.InstanceDegraded: _degraded,
    ev.InstanceStopping: _stopping,
    ev.InstanceStopped: _stopped,
    ev.InstanceStarting: _starting,
    ev.InstanceDeleting: _deleting,
    ev.InstanceDeleted: _deleted,
    ev.InstanceFailed: _failed,
}

# ... and of one of its parts.


def _service_deployed(row: AppRow, event: ev.ServiceDeployed) -> None:
    row.services[event.service] = ServiceRow(state="running", healthy=True, url=event.url, broker=event.broker)


def _service_stopped(row: AppRow, event: ev.ServiceStopped) -> None:
    service = _service(row, event.service)
    service.state, service.healthy = "stopped", False


def _service_removed(row: AppRow, event: ev.ServiceRemoved) -> None:
    service = _service(row, event.service)
    service.state, service.healthy, service.url = "removed", False, None


def _service_health_changed(row: AppRow, event: ev.ServiceHealthChanged) -> None:
    service = _service(row, event.service)
    service.healthy, service.message = event.healthy, event.message


def _data_service_provisioned(row: AppRow, event: ev.DataServiceProvisioned) -> None:
    row.data_services[event.data_service] = DataServiceRow(
        state="provisioned",
        spec=event.spec,
        broker=event.broker,
        plan=event.plan,
        resource=event.resource,
        copy=event.copy,
        origin=event.origin,
        method=event.method,
        healthy=True if event.origin == "attached" else None,
    )


def _data_service_bound(row: AppRow, event: ev.DataServiceBound) -> None:
    data, binding = _data_service(row, event.data_service), event.binding
    data.state, data.binding, data.secret_refs = "bound", binding.attributes, binding.secret_refs


def _data_service_unbound(row: AppRow, event: ev.DataServiceUnbound) -> None:
    data = _data_service(row, event.data_service)
    data.state, data.binding, data.secret_refs = "provisioned", {}, {}


def _data_service_removed(row: AppRow, event: ev.DataServiceRemoved) -> None:
    data = _data_service(row, event.data_service)
    data.state, data.binding, data.secret_refs, data.resource = "removed", {}, {}, {}


def _data_service_detached(row: AppRow, event: ev.DataServiceDetached) -> None:
    data = _data_service(row, event.data_service)
    data.state, data.binding, data.secret_refs, data.healthy = "detached", {}, {}, None


def _data_service_health_changed(row: AppRow, event: ev.DataServiceHealthChanged) -> None:
    data = _data_service(row, event.data_service)
    data.healthy, data.message = event.healthy, event.message


_PART: dict[type[Event], Callable[[AppRow, Any], None]] = {
    ev.ServiceDeployed: _service_deployed,
    ev.ServiceStopped: _service_stopped,
    ev.ServiceRemoved: _service_removed,
    ev.ServiceHealthChanged: _service_health_changed,
    ev.DataServiceProvisioned: _data_service_provisioned,
    ev.DataServiceBound: _data_service_bound,
    ev.DataServiceUnbound: _data_service_unbound,
    ev.DataServiceRemoved: _data_service_removed,
    ev.DataServiceDetached: _data_service_detached,
    ev.DataServiceHealthChanged: _data_service_health_changed,
}


def _service(row: AppRow, name: str) -> ServiceRow:
    found = row.services.get(name)
    if found is None:
        found = row.services[name] = ServiceRow()
    return found


def _data_service(row: AppRow, name: str) -> DataServiceRow:
    found = row.data_services.get(name)
    if found is None:
        found = row.data_services[name] = DataServiceRow()
    return found
