"""The form of a template file. What the fields mean is said here; what must hold between them in ``schemas``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.values import DataClass, DataServiceType, ServiceType


class Written(BaseModel):
    """The base: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ArtifactModel(Written):
    """What an app service runs."""

    type: Literal["process"] = Field(default="process", description="process: local processes")
    directory: str | None = Field(default=None, description="directory to run in, relative to this file")
    wheel: str | None = Field(default=None, description="wheel to install and run, relative to this file")
    command: list[str] = Field(default=[], description="program and arguments, one item each")


class HealthModel(Written):
    """An HTTP probe; without a path, whether the port is listened on."""

    path: str | None = Field(default=None, description="path on the service's port that answers 200 when healthy")
    interval_seconds: float = 2.0
    timeout_seconds: float = 5.0
    start_period_seconds: float = Field(default=60.0, description="how long it may take to become healthy")


class HookModel(Written):
    """A call into the app service."""

    http: str = Field(description="METHOD /path, on the service's own port")
    timeout_seconds: float = 10.0


class HooksModel(Written):
    """Calls around a copy: quiesce ends writing, thaw lets it go on."""

    quiesce: HookModel | None = None
    thaw: HookModel | None = None


class ChannelModel(Written):
    """What an app service may say and hear on a messaging data service, and no more."""

    sends: list[str] = Field(default=[], description="subjects to publish to; * is one token, > all that follow")
    receives: list[str] = Field(default=[], description="subjects to subscribe to")


class ServiceModel(Written):
    """An app service: the stateless part."""

    type: ServiceType = Field(
        default="private", description="public: reached from outside; private: by other services; worker: by nobody"
    )
    artifact: ArtifactModel
    port: int | None = Field(default=None, description="the port it speaks on, 1 to 65535; told to it as PORT")
    environment: dict[str, str] = Field(default={}, description="variables; ${service.attribute} refers to a binding")
    health: HealthModel | None = None
    hooks: HooksModel = HooksModel()
    depends_on: list[str] = Field(default=[], description="app services that must be healthy before it starts")
    channels: dict[str, ChannelModel] = Field(
        default={}, description="by messaging data service: what this app service may send and receive there"
    )
    stop_grace_seconds: float = Field(default=5.0, description="time from SIGTERM to SIGKILL")
    restart: Literal["always", "on-failure", "never"] = "always"


class DataServiceModel(Written):
    """A data service: the stateful part."""

    type: DataServiceType
    broker: str | None = Field(default=None, description="the broker that makes it; else the site chooses")
    plan: str | None = Field(default=None, description="one of the broker's plans; else its first")
    parameters: dict[str, str] = {}
    data_class: DataClass = "restricted"


class TemplateFile(Written):
    """An app template: the topology of an application. A version, once applied, never changes."""

    name: str = Field(description="a-z, 0-9 and '-', at most 40")
    version: str
    description: str = ""
    entrypoint: str | None = Field(default=None, description="the public app service whose address is the app's")
    services: dict[str, ServiceModel]
    data_services: dict[str, DataServiceModel] = {}
