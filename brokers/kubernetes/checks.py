"""Whether a service can run here at all, before anything is made."""

from __future__ import annotations

import re

from brokers.kubernetes.names import ServiceKey
from brokers.kubernetes.settings import KubernetesSettings
from schemas.brokers import DeployService
from schemas.hook_check import PHASES
from schemas.problems import CalqueError, invalid
from schemas.values import Hook

_HOOK = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/\S*)")
_VARIABLE = re.compile(r"[ -<>-~]+")


def check_request(request: DeployService, settings: KubernetesSettings) -> None:
    """Raises ``invalid`` with the field that can't be."""
    ServiceKey(request.instance, request.service).check()
    spec = request.spec
    if request.space not in settings.spaces:
        known = ", ".join(settings.spaces)
        raise CalqueError(invalid("space", f"there is no space {request.space!r}", f"use one of: {known}"))
    if spec.artifact.type != "image" or not spec.artifact.image:
        raise CalqueError(
            invalid("artifact", f"{spec.artifact.type} artifacts don't run on Kubernetes", "name a container image")
        )
    if spec.restart == "never":
        raise CalqueError(invalid("restart", "Kubernetes starts ended services again", "use always or on-failure"))
    for phase in PHASES:
        hook: Hook | None = getattr(spec.hooks, phase)
        if hook is not None:
            check_hook(hook, phase=phase)
    secrets = {name: secret.value for name, secret in request.secret_environment.items()}
    for name, value in {**request.environment, **secrets}.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise CalqueError(invalid(f"environment.{name}", "is no environment variable of a container"))


def check_hook(hook: Hook, *, phase: str) -> None:
    """Raises ``invalid`` for one that can't be called."""
    if not hook.exec:
        parse_hook(hook, phase=phase)
    elif not hook.exec[0]:
        raise CalqueError(invalid(f"hooks.{phase}.exec", "there is no command to run", "give it as a list"))


def parse_hook(hook: Hook, *, phase: str) -> tuple[str, str]:
    """Method and path; raises ``invalid``."""
    if found := _HOOK.fullmatch(hook.http):
        return found[1], found[2]
    raise CalqueError(invalid(f"hooks.{phase}.http", f"{hook.http!r} is no hook", "write it as 'POST /path'"))


def check_deadline(seconds: float) -> None:
    """Raises ``invalid`` for what is no deadline of a hold."""
    if not 0 < seconds <= 3600:
        raise CalqueError(invalid("deadline_seconds", f"{seconds:g} is not between 0 and 3600"))
