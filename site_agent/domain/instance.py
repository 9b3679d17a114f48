"""The instance aggregate: its state is the fold of its events."""

from __future__ import annotations

import msgspec

from schemas import events as ev
from schemas.base import Fact
from schemas.deployed import deployed
from schemas.problems import Problem
from schemas.values import (
    Artifact,
    Attachment,
    Binding,
    DataServiceSpec,
    DataServiceState,
    InstanceState,
    Requester,
    ServiceSpec,
    ServiceState,
    Template,
    Value,
)


class AppService(Fact, frozen=True, kw_only=True):
    """An app service of an instance."""

    name: str
    spec: ServiceSpec
    broker: str
    state: ServiceState = "pending"
    host: str | None = None
    port: int | None = None
    url: str | None = None
    healthy: bool = False
    message: str = ""


class DataService(Fact, frozen=True, kw_only=True):
    """A data service of an instance. ``copy`` is what it was restored from; ``attached`` where it is when it was there
    before: then it is never ours to overwrite or remove."""

    name: str
    spec: DataServiceSpec
    broker: str
    plan: str
    state: DataServiceState = "pending"
    resource: dict[str, str] = {}
    copy: str | None = None
    binding: Binding | None = None
    attached: Attachment | None = None
    healthy: bool = True
    message: str = ""


class Instance(Fact, frozen=True, kw_only=True):
    """An app instance at this site.

    ``template`` is what runs: the parts that are there, each app service with its one artifact and all its values.
    ``written`` is the template as it was applied, of which images are made; the choices that lead from one to the
    other are kept beside it. Of an ``adopted`` one no app service is ours to run.
    """

    id: str
    name: str
    template: Template
    written: Template
    by: Requester
    state: InstanceState
    environment: dict[str, dict[str, Value]] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}
    image: str | None = None
    url: str | None = None
    problem: Problem | None = None
    cleaned: bool = False
    services: dict[str, AppService] = {}
    data_services: dict[str, DataService] = {}
    adopted: bool = False

    @property
    def ill(self) -> dict[str, str]:
        """The parts that are not healthy, and why."""
        existing = (one for one in self.data_services.values() if one.attached)
        parts: tuple[AppService | DataService, ...] = (*self.services.values(), *existing)
        return {one.name: one.message for one in parts if not one.healthy}

    @property
    def holds_name(self) -> bool:
        """Whether its name is taken: until it is deleted, or failed and left nothing behind."""
        return self.state != "deleted" and not (self.state == "failed" and self.cleaned)

    def service_id(self, data_service: str) -> str:
        """The id under which brokers know a data service of this instance, unique over all sites and times."""
        return f"{self.id}-{data_service}"

    def configured(self, service: str) -> dict[str, Value]:
        """The environment of an app service, from all layers, not yet resolved."""
        return self.template.services[service].environment


def evolve(instance: Instance | None, id: str, event: ev.Event) -> Instance | None:
    """The state after ``event``."""
    if isinstance(event, ev.InstanceDeploying):
        return _begin(id, event)
    if instance is None:
        return None
    match event:
        case ev.InstanceRunning(url=url):
            return _replace(instance, state="running", url=url, problem=None)
        case ev.InstanceDegraded():
            return _replace(instance, state="degraded")
        case ev.InstanceStopping():
            return _replace(instance, state="stopping")
        case ev.InstanceStopped():
            return _replace(instance, state="stopped")
        case ev.InstanceStarting():
            return _replace(instance, state="starting")
        case ev.InstanceDeleting():
            return _replace(instance, state="deleting")
        case ev.InstanceDeleted():
            return _replace(instance, state="deleted", url=None)
        case ev.InstanceFailed(problem=problem, cleaned=cleaned):
            return _replace(instance, state="failed", problem=problem, cleaned=cleaned)
        case ev.DataServiceProvisioned(data_service=name, resource=resource, copy=copy):
            return _data(instance, name, state="provisioned", resource=resource, copy=copy)
        case ev.DataServiceBound(data_service=name, binding=binding):
            return _data(instance, name, state="bound", binding=binding)
        case ev.DataServiceUnbound(data_service=name):
            return _data(instance, name, state="provisioned", binding=None)
        case ev.DataServiceRemoved(data_service=name):
            return _data(instance, name, state="removed", binding=None)
        case ev.DataServiceDetached(data_service=name):
            return _data(instance, name, state="detached", binding=None, healthy=True, message="")
        case ev.DataServiceHealthChanged(data_service=name, healthy=healthy, message=message):
            return _data(instance, name, healthy=healthy, message=message)
        case ev.ServiceDeployed(service=name, url=url, host=host, port=port):
            return _service(instance, name, state="running", url=url, host=host, port=port, healthy=True, message="")
        case ev.ServiceStopped(service=name):
            return _service(instance, name, state="stopped", healthy=False)
        case ev.ServiceRemoved(service=name):
            return _service(instance, name, state="removed", healthy=False)
        case ev.ServiceHealthChanged(service=name, healthy=healthy, message=message):
            return _service(instance, name, healthy=healthy, message=message)
    return instance


def _begin(id: str, event: ev.InstanceDeploying) -> Instance:
    template = deployed(event)
    return Instance(
        id=id,
        name=event.name,
        template=template,
        written=event.template,
        environment_name=event.environment_name,
        without=event.without,
        artifacts=event.artifacts,
        by=event.by,
        state="deploying",
        environment=event.environment,
        image=event.image,
        adopted=event.adopted,
        services={
            name: AppService(name=name, spec=spec, broker=event.brokers.get(name, ""))
            for name, spec in template.services.items()
        },
        data_services={
            name: DataService(
                name=name,
                spec=spec,
                broker=event.brokers.get(name, ""),
                plan=event.plans.get(name, ""),
                copy=event.copies.get(name),
                attached=event.attached.get(name),
            )
            for name, spec in template.data_services.items()
        },
    )


def _replace(instance: Instance, **changes: object) -> Instance:
    return msgspec.structs.replace(instance, **changes)


def _data(instance: Instance, name: str, **changes: object) -> Instance:
    service = instance.data_services.get(name)
    if service is None:
        return instance
    changed = msgspec.structs.replace(service, **changes)
    return _replace(instance, data_services={**instance.data_services, name: changed})


def _service(instance: Instance, name: str, **changes: object) -> Instance:
    service = instance.services.get(name)
    if service is None:
        return instance
    changed = msgspec.structs.replace(service, **changes)
    return _replace(instance, services={**instance.services, name: changed})
