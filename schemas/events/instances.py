"""Events of app instances, written by the site that they live on: their services, data services and bindings."""

from __future__ import annotations

from schemas.events.base import Event
from schemas.problems import Problem
from schemas.registry import event
from schemas.values import (
    Artifact,
    Attachment,
    Binding,
    DataServiceSpec,
    Origin,
    Requester,
    Template,
    Value,
)


@event("instance", "deploying")
class InstanceDeploying(Event, frozen=True, kw_only=True):
    """An instance came to be, blank (``image`` is ``None``) or from an image.

    ``brokers`` maps every service and data service to the broker chosen for it, ``plans`` every data service to
    its plan, ``copies`` (of an image) every data service to the copy that it is restored from. ``template`` is as it
    was applied; what runs of it follows from ``environment``, ``environment_name``, ``without`` (all parts that are
    left out) and ``artifacts`` (asked for instead of the template's) by :func:`schemas.configuration.effective`.
    ``picked`` is the artifact that was chosen for each app service which has alternatives. ``attached`` are the data
    services that were there before; of an ``adopted`` instance no app service is ours.
    """

    name: str
    template: Template
    by: Requester
    environment: dict[str, dict[str, Value]] = {}
    image: str | None = None
    brokers: dict[str, str] = {}
    plans: dict[str, str] = {}
    copies: dict[str, str] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}
    picked: dict[str, Artifact] = {}
    attached: dict[str, Attachment] = {}
    adopted: bool = False


@event("instance", "running")
class InstanceRunning(Event, frozen=True, kw_only=True):
    """Every app service is healthy. ``url`` is where the entry point answers."""

    url: str | None = None


@event("instance", "degraded")
class InstanceDegraded(Event, frozen=True, kw_only=True):
    """A required part is not healthy."""

    message: str


@event("instance", "stopping")
class InstanceStopping(Event, frozen=True, kw_only=True):
    """The app services are being stopped."""


@event("instance", "stopped")
class InstanceStopped(Event, frozen=True, kw_only=True):
    """The app services are stopped, data is kept."""


@event("instance", "starting")
class InstanceStarting(Event, frozen=True, kw_only=True):
    """The app services are being started again."""


@event("instance", "deleting")
class InstanceDeleting(Event, frozen=True, kw_only=True):
    """The instance and its data are being removed."""


@event("instance", "deleted")
class InstanceDeleted(Event, frozen=True, kw_only=True):
    """The instance and its data are gone."""


@event("instance", "failed")
class InstanceFailed(Event, frozen=True, kw_only=True):
    """The instance can't be used. ``cleaned`` when nothing of it is left at the site."""

    problem: Problem
    cleaned: bool = False


@event("instance", "data_service_provisioned")
class DataServiceProvisioned(Event, frozen=True, kw_only=True):
    """A data service exists, blank or restored (``copy``). ``resource`` says where and what, without secrets;
    ``method`` how it was restored, where its broker knows more than one way."""

    data_service: str
    spec: DataServiceSpec
    broker: str
    plan: str
    resource: dict[str, str] = {}
    copy: str | None = None
    origin: Origin = "provisioned"
    method: str = ""


@event("instance", "data_service_bound")
class DataServiceBound(Event, frozen=True, kw_only=True):
    """A binding was made; the secrets behind its references stay at the site."""

    data_service: str
    binding: Binding


@event("instance", "data_service_unbound")
class DataServiceUnbound(Event, frozen=True, kw_only=True):
    """The binding is gone, and its credentials with it."""

    data_service: str


@event("instance", "data_service_removed")
class DataServiceRemoved(Event, frozen=True, kw_only=True):
    """The data service and its data are gone."""

    data_service: str


@event("instance", "data_service_detached")
class DataServiceDetached(Event, frozen=True, kw_only=True):
    """A data service that was there before is no longer part of the app. Nothing of it was changed."""

    data_service: str


@event("instance", "data_service_health_changed")
class DataServiceHealthChanged(Event, frozen=True, kw_only=True):
    """The broker's check of a data service changed its mind."""

    data_service: str
    healthy: bool
    message: str = ""


@event("instance", "service_deployed")
class ServiceDeployed(Event, frozen=True, kw_only=True):
    """An app service runs and is healthy."""

    service: str
    broker: str
    url: str | None = None
    host: str | None = None
    port: int | None = None
    artifact_digest: str | None = None


@event("instance", "service_stopped")
class ServiceStopped(Event, frozen=True, kw_only=True):
    """An app service was stopped."""

    service: str


@event("instance", "service_removed")
class ServiceRemoved(Event, frozen=True, kw_only=True):
    """An app service is gone from its platform."""

    service: str


@event("instance", "service_health_changed")
class ServiceHealthChanged(Event, frozen=True, kw_only=True):
    """The platform's probe of an app service changed its mind."""

    service: str
    healthy: bool
    message: str = ""
