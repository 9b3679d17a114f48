"""Requests to platforms: app services, holds, hooks, logs."""

from __future__ import annotations

from typing import Literal

from schemas.base import Fact
from schemas.brokers.every import Change, Reply, Request
from schemas.registry import message
from schemas.secrets import Secret
from schemas.values import (
    Hook,
    ServiceSpec,
    ServiceState,
)


@message("reply.psb.info")
class PsbInfo(Reply, frozen=True, kw_only=True):
    """``artifacts`` are the artifact types that it runs; ``spaces`` where. ``hooks`` are the kinds of hooks that it
    can call: ``http`` (quiesce and thaw over HTTP), ``run`` (the other phases over HTTP), ``exec`` (commands in a
    service that runs), ``task`` (commands before the service runs).
    ``engine`` and ``engine_version`` say what it is: templates may require a range of versions of it."""

    name: str
    version: str
    artifacts: tuple[str, ...]
    spaces: tuple[str, ...] = ("default",)
    hooks: tuple[str, ...] = ("http",)
    can_pause: bool = True
    engine: str = ""
    engine_version: str = ""


@message("request.psb.spaces")
class SpacesRequest(Request, frozen=True, kw_only=True):
    """Which spaces are there?"""


@message("reply.psb.spaces")
class Spaces(Reply, frozen=True, kw_only=True):
    """Names of spaces."""

    spaces: tuple[str, ...]


class ServiceRef(Fact, frozen=True, kw_only=True):
    """One app service of one instance."""

    instance: str
    service: str


@message("request.psb.deploy")
class DeployService(Change, frozen=True, kw_only=True):
    """Run an app service and wait until it is healthy. Long. The same service again with the same content is
    no change; with other content it is replaced. A stopped one is started.

    ``environment`` is resolved; ``secret_environment`` holds the variables that contain secrets.
    """

    instance: str
    service: str
    spec: ServiceSpec
    environment: dict[str, str] = {}
    secret_environment: dict[str, Secret] = {}
    labels: dict[str, str] = {}
    space: str = "default"


@message("reply.psb.deploy")
class Deployed(Reply, frozen=True, kw_only=True):
    """Where it answers."""

    host: str | None = None
    port: int | None = None
    url: str | None = None
    artifact_digest: str | None = None


@message("request.psb.describe")
class DescribeServices(Request, frozen=True, kw_only=True):
    """What of ours runs: all, or what belongs to one instance."""

    instance: str | None = None


class ServiceStatus(Fact, frozen=True, kw_only=True):
    """What the platform says of one app service. ``healthy`` is its probe's word, not the absence of errors."""

    instance: str
    service: str
    state: ServiceState
    healthy: bool = False
    paused: bool = False
    url: str | None = None
    host: str | None = None
    port: int | None = None
    pid: int | None = None
    restarts: int = 0
    message: str = ""
    labels: dict[str, str] = {}


@message("reply.psb.describe")
class ServicesDescription(Reply, frozen=True, kw_only=True):
    """All app services found."""

    services: tuple[ServiceStatus, ...]


@message("request.psb.scale")
class ScaleService(Change, frozen=True, kw_only=True):
    """Run ``replicas`` of it; 0 stops it and keeps what is needed to deploy it again. Long. Unknown at 0 is done."""

    instance: str
    service: str
    replicas: int


@message("request.psb.pause")
class PauseService(Change, frozen=True, kw_only=True):
    """Freeze the service; the platform resumes it by itself after ``deadline_seconds``."""

    instance: str
    service: str
    deadline_seconds: float


@message("request.psb.resume")
class ResumeService(Change, frozen=True, kw_only=True):
    """Let it go on. Not paused is done. ``pause`` is the id of the pause that it ends."""

    instance: str
    service: str
    pause: str = ""


@message("request.psb.exec_hook")
class ExecHook(Change, frozen=True, kw_only=True):
    """Call a hook of the app service that holds or lets go its writers: ``quiesce`` (body of an HTTP hook:
    ``{"deadline_seconds": n}``) or ``thaw``. An ``exec`` hook finds the number in ``CALQUE_DEADLINE_SECONDS``."""

    instance: str
    service: str
    phase: Literal["quiesce", "thaw"]
    hook: Hook
    deadline_seconds: float = 30.0


RunHookPhase = Literal["before_copy", "after_copy", "before_restore", "after_restore"]


@message("request.psb.run_hook")
class RunHook(Change, frozen=True, kw_only=True):
    """Run any other hook to its end. Long; the same id is never run twice at the same time.

    ``http`` hooks get the body ``{"phase": ...}``; ``exec`` ones run in the service's environment and working
    directory, and find ``CALQUE_HOOK`` (the phase) there. A command that ends with another code than 0 is the
    permanent problem ``hook_failed``, with the end of its output and no secrets; one that takes longer than
    ``hook.timeout_seconds`` is ended with all its children: ``hook_timeout``.

    With ``task`` the service is not there yet: the command runs where the service would, as that deployment
    describes it, and what was made for it alone is gone afterwards.
    """

    instance: str
    service: str
    phase: RunHookPhase
    hook: Hook
    task: DeployService | None = None


@message("reply.psb.hook")
class Held(Reply, frozen=True, kw_only=True):
    """The answer of pause, resume and exec_hook.

    For the two that end a hold, ``held`` says whether the service was held without a break from the
    acknowledged quiesce (or pause) until now; false when the deadline let it go before.
    """

    held: bool
    message: str = ""


@message("reply.psb.run_hook")
class HookRan(Reply, frozen=True, kw_only=True):
    """The hook did its work; ``output`` is the end of what a command printed, without secrets."""

    output: str = ""


@message("request.psb.remove")
class RemoveService(Change, frozen=True, kw_only=True):
    """Stop it and remove all that belongs to it. Unknown is done. Long."""

    instance: str
    service: str


@message("request.psb.logs")
class LogsRequest(Request, frozen=True, kw_only=True):
    """The last ``lines`` lines of an app service."""

    instance: str
    service: str
    lines: int = 100


@message("reply.psb.logs")
class LogLines(Reply, frozen=True, kw_only=True):
    """Lines, oldest first, without line ends."""

    lines: tuple[str, ...]
