"""The hooks of a service: calls on its own port, and commands in its environment and working directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from brokers.process.calls import ServiceCalls, parse_hook
from brokers.process.commands import CannotRun, run_command
from brokers.process.environment import program_of
from brokers.process.layout import ServiceFiles
from brokers.process.logfiles import append_lines
from brokers.process.supervision import Supervision
from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.masking import Mask
from schemas.problems import CalqueError, invalid
from schemas.values import Hook

Body = Mapping[str, float | str]


class ServiceHooks:
    """The hooks of one service."""

    def __init__(self, service: Supervision, calls: ServiceCalls) -> None:
        self._service = service
        self._calls = calls

    async def call(self, hook: Hook, *, phase: str, body: Body) -> str:
        """Call ``hook``; what its command printed last, masked. A command finds ``body`` in its environment
        (``deadline_seconds`` as ``CALQUE_DEADLINE_SECONDS``), and ``CALQUE_HOOK``.

        Raises as :func:`run_hook` and :meth:`ServiceCalls.hook`, and ``invalid`` for a service without a port.
        """
        service = self._service
        if not hook.exec:
            port = service.record.port
            if port is None:
                raise CalqueError(invalid(f"hooks.{phase}", "the service has no port", "give it a port, or use exec"))
            await self._calls.hook(hook, body, port=port, phase=phase, mask=service.mask)
            return ""
        return await run_hook(
            service.files,
            hook,
            phase=phase,
            body=body,
            directory=service.files.artifact,
            environment=service.environment(),
            mask=service.mask,
        )


def check_hook(hook: Hook, *, phase: str) -> None:
    """Raises ``invalid`` for one that can't be called."""
    if not hook.exec:
        parse_hook(hook, phase=phase)
    elif not hook.exec[0]:
        raise CalqueError(invalid(f"hooks.{phase}.exec", "there is no command to run", "give it as a list"))


async def run_hook(
    files: ServiceFiles,
    hook: Hook,
    *,
    phase: str,
    body: Body,
    directory: Path,
    environment: Mapping[str, str],
    mask: Mask,
) -> str:
    """Run the command of ``hook``; what it printed last, masked. All of that is in the log of the service too.

    Raises the permanent ``hook_failed``, or the temporary ``hook_timeout``.
    """
    given = {f"CALQUE_{name.upper()}": str(value) for name, value in body.items()}
    field = f"hooks.{phase}"
    shown = " ".join(hook.exec)
    try:
        ended = await run_command(
            [program_of(hook.exec[0]), *hook.exec[1:]],
            directory=directory,
            environment={**environment, **given, "CALQUE_HOOK": phase},
            mark=f"{files.root}/{phase}",
            timeout_seconds=hook.timeout_seconds,
        )
    except CannotRun as error:
        raise permanent_error("hook_failed", f"the {phase} hook {shown!r}: {error}", field=field) from None
    if ended.output:
        append_lines(files.log, [f"[{phase}] {line}" for line in ended.output.splitlines()])
    output = mask(ended.output)
    tail = f"; the end of its output:\n{output}" if output else "; it printed nothing"
    if ended.exit_code is None:
        raise temporary_error(
            "hook_timeout",
            f"the {phase} hook {shown!r} did not end within {hook.timeout_seconds:g} s{tail}",
            field=field,
        )
    if ended.exit_code:
        how = f"exit code {ended.exit_code}" if ended.exit_code > 0 else f"signal {-ended.exit_code}"
        raise permanent_error(
            "hook_failed",
            f"the {phase} hook {shown!r} ended with {how}{tail}",
            field=field,
            remedy="see the log of the service",
        )
    return output
