"""App instances as their sites tell of them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from schemas.configuration import without_parts
from schemas.events import (
    DataServiceBound,
    DataServiceDetached,
    DataServiceHealthChanged,
    DataServiceProvisioned,
    DataServiceRemoved,
    DataServiceUnbound,
    Event,
    InstanceDegraded,
    InstanceDeleted,
    InstanceDeleting,
    InstanceDeploying,
    InstanceFailed,
    InstanceRunning,
    InstanceStarting,
    InstanceStopped,
    InstanceStopping,
    ServiceDeployed,
    ServiceHealthChanged,
    ServiceRemoved,
    ServiceStopped,
)
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

    def __init__(self) -> None:
        self.rows: dict[Key, AppRow] = {}
        self.by_id: dict[str, tuple[Key, ...]] = {}
        self.by_name: dict[str, tuple[Key, ...]] = {}
        """Name -> those that bear it and are not gone."""

    def index(self) -> None:
        """Make what follows from the rows, after they were loaded."""
        for key, row in self.rows.items():
            self._note_id(key)
            self._renamed(key, None, row.name)

    def apply(self, site: str, id: str, event: Event, time: str, operation: str | None, _causation: str | None) -> None:
        """Take in one event of an instance."""
        row = self.rows.get((site, id))
        if row is None:
            row = self.rows[site, id] = AppRow(site=site, id=id, created_at=time, operation=operation)
            self._note_id((site, id))
        row.changed_at = time
        before = row.name
        if not _whole(row, event):
            _part(row, event)
        elif (now := row.name) != before:
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


def _whole(row: AppRow, event: Event) -> bool:
    match event:
        case InstanceDeploying():
            template = without_parts(event.template, event.without)
            row.deploying, row.state = event, "deploying"
            for name in () if event.adopted else template.services:
                row.services.setdefault(name, ServiceRow(broker=event.brokers.get(name)))
            for name, spec in template.data_services.items():
                row.data_services.setdefault(
                    name,
                    DataServiceRow(
                        state="restoring" if event.image else "provisioning",
                        spec=spec,
                        broker=event.brokers.get(name),
                        plan=event.plans.get(name),
                        copy=event.copies.get(name),
                        origin="attached" if name in event.attached else "provisioned",
                    ),
                )
        case InstanceRunning(url=url):
            row.state, row.url, row.message = "running", url, ""
        case InstanceDegraded(message=message):
            row.state, row.message = "degraded", message
        case InstanceStopping():
            row.state = "stopping"
            _services(row, {"running"}, "stopping")
        case InstanceStopped():
            row.state, row.message = "stopped", ""
            _services(row, {"running", "stopping"}, "stopped")
        case InstanceStarting():
            row.state = "starting"
            _services(row, {"stopped", "stopping"}, "deploying")
        case InstanceDeleting():
            row.state = "deleting"
            _services(row, {"running"}, "stopping")
        case InstanceDeleted():
            row.state, row.url = "deleted", None
            for service in row.services.values():
                service.state, service.healthy = "removed", False
            for data in row.data_services.values():
                data.state = "detached" if data.origin == "attached" else "removed"
                data.binding, data.secret_refs = {}, {}
        case InstanceFailed(problem=problem, cleaned=cleaned):
            row.state, row.message, row.cleaned = "failed", problem.sentence(), cleaned
            if cleaned:
                row.url = None
        case _:
            return False
    return True


def _services(row: AppRow, states: set[str], after: ServiceState) -> None:
    for service in row.services.values():
        if service.state in states:
            service.state, service.healthy = after, False


def _part(row: AppRow, event: Event) -> None:
    match event:
        case ServiceDeployed(service=name, broker=broker, url=url):
            row.services[name] = ServiceRow(state="running", healthy=True, url=url, broker=broker)
        case ServiceStopped(service=name):
            service = _service(row, name)
            service.state, service.healthy = "stopped", False
        case ServiceRemoved(service=name):
            service = _service(row, name)
            service.state, service.healthy, service.url = "removed", False, None
        case ServiceHealthChanged(service=name, healthy=healthy, message=message):
            service = _service(row, name)
            service.healthy, service.message = healthy, message
        case DataServiceProvisioned(data_service=name):
            row.data_services[name] = DataServiceRow(
                state="provisioned",
                spec=event.spec,
                broker=event.broker,
                plan=event.plan,
                resource=event.resource,
                copy=event.copy,
                origin=event.origin,
                healthy=True if event.origin == "attached" else None,
            )
        case DataServiceBound(data_service=name, binding=binding):
            data = _data_service(row, name)
            data.state, data.binding, data.secret_refs = "bound", binding.attributes, binding.secret_refs
        case DataServiceUnbound(data_service=name):
            data = _data_service(row, name)
            data.state, data.binding, data.secret_refs = "provisioned", {}, {}
        case DataServiceRemoved(data_service=name):
            data = _data_service(row, name)
            data.state, data.binding, data.secret_refs, data.resource = "removed", {}, {}, {}
        case DataServiceDetached(data_service=name):
            data = _data_service(row, name)
            data.state, data.binding, data.secret_refs, data.healthy = "detached", {}, {}, None
        case DataServiceHealthChanged(data_service=name, healthy=healthy, message=message):
            data = _data_service(row, name)
            data.healthy, data.message = healthy, message


def _service(row: AppRow, name: str) -> ServiceRow:
    return row.services.setdefault(name, ServiceRow())


def _data_service(row: AppRow, name: str) -> DataServiceRow:
    return row.data_services.setdefault(name, DataServiceRow())
