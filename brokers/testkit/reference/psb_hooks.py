"""Hooks of the reference platform: the commands of the kit's app, without a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from brokers.testkit.reference.fake_app import FakeApp
from schemas.brokers import DeployService, HookRan, RunHook
from schemas.problems import CalqueError, permanent, temporary

LINGERING_SECONDS = 60.0


class ReferenceHook:
    """One hook of a service that is deployed as ``deployment`` says."""

    def __init__(self, request: RunHook, deployment: DeployService | None, *, broken: Callable[[str], bool]) -> None:
        self._request = request
        self._deployment = deployment
        self._broken = broken

    def call(self, app: FakeApp) -> None:
        """Over HTTP."""
        body = {} if self._broken("psb.run_hook.called") else {"phase": self._request.phase}
        for _ in range(2 if self._broken("psb.run_hook.repeated") else 1):
            app.call(self._request.hook.http.partition(" ")[2], body)

    async def command(self) -> HookRan:
        """As a command; the last word says what it does."""
        request, field = self._request, f"hooks.{self._request.phase}"
        does = request.hook.exec[-1]
        if does == "linger" and not self._broken("psb.exec.timeout"):
            await asyncio.sleep(min(request.hook.timeout_seconds, LINGERING_SECONDS))
            raise CalqueError(temporary("hook_timeout", "it took too long", field=field))
        output = f"{request.phase} {self._word()}"
        if does == "fail":
            told = "" if self._broken("psb.exec.failed") else f": {output}"
            raise CalqueError(permanent("hook_failed", f"it ended with exit code 1{told}", field=field))
        return HookRan(output=output)

    def _word(self) -> str:
        deployment = self._deployment
        if deployment is None or self._broken("psb.exec.ran"):
            return ""
        if (secret := deployment.secret_environment.get("CONFORM_WORD")) is not None:
            return secret.value if self._broken("psb.exec.secrets") else "***"
        return deployment.environment.get("CONFORM_WORD", "")
