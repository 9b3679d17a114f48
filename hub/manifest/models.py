"""The form of a template file. What the fields mean is said here; what must hold between them in ``schemas``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from schemas.masking import Unclassified
from schemas.masking_rows import SHARE_WORDS
from schemas.masking_rules import WORDS
from schemas.values import DataClass, DataServiceType, ServiceType

TEXT, SECRET = "<text>", "<secret>"
"""The two forms of a value. What stands in ``<>`` is in the place of an error, but not in the file."""


class Written(BaseModel):
    """The base: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SecretRefModel(Written):
    """A value that the site keeps: nobody sees it but the app service."""

    secretRef: str = Field(description="name of a secret that was set at the site: calque secret set NAME")


def _form(value: Any) -> str:
    return SECRET if isinstance(value, (dict, BaseModel)) else TEXT


ValueModel = Annotated[Annotated[str, Tag(TEXT)] | Annotated[SecretRefModel, Tag(SECRET)], Discriminator(_form)]
Variables = dict[str, ValueModel]


class ArtifactModel(Written):
    """What an app service runs."""

    type: Literal["process", "image"] = Field(
        default="process", description="process: local processes; image: a container image"
    )
    directory: str | None = Field(default=None, description="process: directory to run in, relative to this file")
    wheel: str | None = Field(default=None, description="process: wheel to install and run, relative to this file")
    image: str | None = Field(default=None, description="image: its name, registry/name:tag or ...@sha256:digest")
    command: list[str] = Field(default=[], description="program and arguments, one item each")


class HealthModel(Written):
    """An HTTP probe; without a path, whether the port is listened on."""

    path: str | None = Field(default=None, description="path on the service's port that answers 200 when healthy")
    interval_seconds: float = 2.0
    timeout_seconds: float = 5.0
    start_period_seconds: float = Field(default=60.0, description="how long it may take to become healthy")


class HookModel(Written):
    """A call into the app service: one of http and exec."""

    http: str = Field(default="", description="METHOD /path, on the service's own port")
    exec: list[str] = Field(default=[], description="command in the service's environment, one item per word")
    timeout_seconds: float = 10.0


class HooksModel(Written):
    """Calls around copies and restores."""

    quiesce: HookModel | None = Field(default=None, description="ends writing until thaw; without it, it is paused")
    thaw: HookModel | None = Field(default=None, description="lets writing go on")
    before_copy: HookModel | None = Field(default=None, description="before a save; when it fails, the save fails")
    after_copy: HookModel | None = Field(default=None, description="when the copies are made, also when the save fails")
    before_restore: HookModel | None = Field(
        default=None, description="data restored and bound, no app service started yet; exec only"
    )
    after_restore: HookModel | None = Field(
        default=None, description="the restored app is healthy, and not announced as running yet"
    )


class ChannelModel(Written):
    """What an app service may say and hear on a messaging data service, and no more."""

    sends: list[str] = Field(default=[], description="subjects to publish to; * is one token, > all that follow")
    receives: list[str] = Field(default=[], description="subjects to subscribe to")


class ServiceModel(Written):
    """An app service: the stateless part."""

    type: ServiceType = Field(
        default="private", description="public: reached from outside; private: by other services; worker: by nobody"
    )
    artifact: ArtifactModel | None = Field(default=None, description="what it runs; or artifacts")
    artifacts: list[ArtifactModel] = Field(
        default=[], description="alternatives, the preferred first: the site runs the first that a platform can"
    )
    port: int | None = Field(default=None, description="the port it speaks on, 1 to 65535; told to it as PORT")
    environment: Variables = Field(default={}, description="variables; ${service.attribute} refers to a binding")
    health: HealthModel | None = None
    hooks: HooksModel = HooksModel()
    depends_on: list[str] = Field(default=[], description="app services that must be healthy before it starts")
    channels: dict[str, ChannelModel] = Field(
        default={}, description="by messaging data service: what this app service may send and receive there"
    )
    wants: list[str] = Field(default=[], description="optional services that it uses where they are there")
    optional: bool = Field(default=False, description="it may be left out: --without NAME")
    requires: dict[str, str] = Field(
        default={}, description="version ranges by platform: kubernetes: '>=1.28', python: '>=3.11'"
    )
    stop_grace_seconds: float = Field(default=5.0, description="time from SIGTERM to SIGKILL")
    restart: Literal["always", "on-failure", "never"] = "always"


class DataServiceRequirementModel(Written):
    """What the technology behind a data service must be."""

    engine: str = Field(default="", description="its name, as in: calque broker list -o wide")
    version: str = Field(default="", description="range of its version: '>=15,<18'")


class MaskingModel(Written):
    """How a data service is masked in masked saves."""

    columns: dict[str, str | None] = Field(
        default={},
        description="[schema.]table.column[->key.key]: transformer; the first that fits a column counts. One of: "
        + WORDS,
    )
    unclassified: Unclassified = Field(
        default="keep", description="what becomes of columns that no rule fits; refuse: the save is refused"
    )
    keep: bool = Field(default=False, description="all that it holds is harmless and is copied as it is")
    rows: dict[str, str | Annotated[int, Field(strict=True)]] = Field(
        default={},
        description="[schema.]table: how much of it is kept; the first that fits a table counts. One of: "
        + SHARE_WORDS,
    )


class DataServiceModel(Written):
    """A data service: the stateful part."""

    type: DataServiceType
    broker: str | None = Field(default=None, description="the broker that makes it; else the site chooses")
    plan: str | None = Field(default=None, description="one of the broker's plans; else its first")
    parameters: dict[str, str] = {}
    data_class: DataClass = "restricted"
    optional: bool = Field(default=False, description="it may be left out: --without NAME")
    requires: DataServiceRequirementModel | None = None
    masking: MaskingModel | None = Field(default=None, description="rules for masked saves: calque save --masked")


class ServiceEnvironmentModel(Written):
    """What a named environment sets for one app service."""

    environment: Variables = {}


class NamedEnvironmentModel(Written):
    """An environment to deploy in: --environment NAME."""

    environment: Variables = Field(default={}, description="variables of all app services")
    services: dict[str, ServiceEnvironmentModel] = Field(default={}, description="variables of single app services")
    without: list[str] = Field(default=[], description="optional services that are left out there")


class AppRequirementModel(Written):
    """What the site must be."""

    calque: str = Field(default="", description="range of its version of Calque: '>=0.1'")


class TemplateFile(Written):
    """An app template: the topology of an application. A version, once applied, never changes."""

    name: str = Field(description="a-z, 0-9 and '-', at most 40")
    version: str
    description: str = ""
    entrypoint: str | None = Field(default=None, description="the public app service whose address is the app's")
    requires: AppRequirementModel | None = None
    environment: Variables = Field(default={}, description="variables of all app services; the lowest layer")
    environments: dict[str, NamedEnvironmentModel] = Field(default={}, description="values per environment, by name")
    services: dict[str, ServiceModel]
    data_services: dict[str, DataServiceModel] = {}
