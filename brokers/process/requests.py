"""What a deployment must hold, and the hooks that run before it."""

from __future__ import annotations

from collections.abc import Mapping

from brokers.process.artifacts import source_of
from brokers.process.environment import environment_of
from brokers.process.hooks import check_hook, run_hook
from brokers.process.layout import ServiceFiles
from brokers.sdk.masking import Mask
from schemas.brokers import DeployService, RunHook
from schemas.hook_check import PHASES
from schemas.problems import CalqueError, invalid
from schemas.values import Hook

SPACE = "default"


def check_deployment(request: DeployService) -> None:
    """Raises ``invalid`` for what can't be deployed here."""
    if request.space != SPACE:
        raise CalqueError(invalid("space", f"there is no space {request.space!r}", f"use {SPACE!r}"))
    source_of(request.spec.artifact)
    for phase in PHASES:
        hook: Hook | None = getattr(request.spec.hooks, phase)
        if hook is not None:
            check_hook(hook, phase=phase)
    variables: Mapping[str, str] = {
        **request.environment,
        **{name: secret.value for name, secret in request.secret_environment.items()},
    }
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise CalqueError(invalid(f"environment.{name}", "is no environment variable"))


async def run_task(files: ServiceFiles, request: RunHook, deployment: DeployService) -> str:
    """Run a hook in the artifact that lies staged, as the service of ``deployment`` would find it. There is no port
    yet. Raises as :func:`run_hook`."""
    if not request.hook.exec:
        raise CalqueError(invalid(f"hooks.{request.phase}", "the service does not run yet", "use exec"))
    environment = environment_of(
        files,
        spec=deployment.spec,
        plain=deployment.environment,
        secrets=deployment.secret_environment,
        port=None,
        artifact=files.staged,
    )
    return await run_hook(
        files,
        request.hook,
        phase=request.phase,
        body={},
        directory=files.staged,
        environment=environment,
        mask=Mask(deployment.secret_environment.values()),
    )
