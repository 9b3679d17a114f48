"""Hooks and health checks of app services: what must hold of them, and when each hook runs. Pure.

Saving an instance, for each app service that has the hook (only while the instance runs):

    before_copy     first of all, before anything is staged; when it fails, the save fails
    quiesce         ends writing; the moments of all data services are fixed behind it
    thaw            lets writing go on
    after_copy      when the data of every data service is copied; also when the save fails or is cancelled, so
                    what before_copy did is always taken back. It may run twice. Its failure does not fail the save

Running an image:

    before_restore  the data is restored and bound, and no app service has been started: ``exec`` only, in the place
                    and environment that the service will have. Variables that refer to an app service are not set
    after_restore   every app service is healthy, and the app is not announced as running yet

A failure of either fails the run. A hook may be called again after a crash, so it must bear that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final, Literal

from schemas.problems import Problem, invalid
from schemas.values import HealthCheck, Hook, ServiceSpec

HookPhase = Literal["quiesce", "thaw", "before_copy", "after_copy", "before_restore", "after_restore"]
PHASES: Final[tuple[HookPhase, ...]] = (
    "quiesce",
    "thaw",
    "before_copy",
    "after_copy",
    "before_restore",
    "after_restore",
)
HOLDING: Final = frozenset({"quiesce", "thaw"})
"""The phases between which writers are held: prompt, and bound by the deadline of the hold."""

_HOOK = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /[\x21-\x7e]*")
_PATH = re.compile(r"/[\x21-\x7e]*")


def check_health(health: HealthCheck, service: ServiceSpec, *, field: str) -> Iterator[Problem]:
    """What is wrong with a health check."""
    if health.path is not None and not _PATH.fullmatch(health.path):
        yield invalid(f"{field}.path", f"{health.path!r} is no path", "begin it with '/', without spaces")
    if service.port is None:
        yield invalid(field, "a health check needs a port", "give the app service a port, or remove the health check")
    for name in ("interval_seconds", "timeout_seconds", "start_period_seconds"):
        if not is_duration(getattr(health, name), low=0.05):
            yield no_duration(f"{field}.{name}", getattr(health, name))


def check_hooks(service: ServiceSpec, *, field: str) -> Iterator[Problem]:
    """What is wrong with the hooks of an app service."""
    hooks = service.hooks
    for phase in PHASES:
        hook: Hook | None = getattr(hooks, phase)
        if hook is not None:
            yield from _hook(hook, service, phase=phase, field=f"{field}.{phase}")
    if (hooks.quiesce is None) != (hooks.thaw is None):
        missing = "thaw" if hooks.thaw is None else "quiesce"
        yield invalid(f"{field}.{missing}", "one hook is given without the other", f"give {missing} too, or neither")


def kinds_of_hooks(service: ServiceSpec) -> dict[str, HookPhase]:
    """The kinds of hooks that an app service needs a platform to call, as in ``PsbInfo.hooks``, each with a phase that
    needs it."""
    found: dict[str, HookPhase] = {}
    for phase in PHASES:
        hook: Hook | None = getattr(service.hooks, phase)
        if hook is not None:
            called = "http" if phase in HOLDING else "run"
            kind = "task" if phase == "before_restore" else "exec" if hook.exec else called
            found.setdefault(kind, phase)
    return found


def is_duration(value: float, *, low: float) -> bool:
    """Whether ``value`` is a number of seconds from ``low`` to a day."""
    return math.isfinite(value) and low <= value <= 86400


def no_duration(field: str, value: float) -> Problem:
    """The problem of a value that is no duration."""
    return invalid(field, f"{value} is no duration", "give seconds, more than 0 and at most a day")


def _hook(hook: Hook, service: ServiceSpec, *, phase: HookPhase, field: str) -> Iterator[Problem]:
    if hook.exec:
        if hook.http:
            yield invalid(field, "both http and exec are given", "keep one of them")
        if not hook.exec[0]:
            yield invalid(f"{field}.exec", "there is no command to run", "give it as a list: [python, -m, app.reindex]")
        for number, word in enumerate(hook.exec):
            if "\0" in word:
                yield invalid(f"{field}.exec[{number}]", "it holds a NUL character", "remove it")
    elif phase == "before_restore":
        yield invalid(f"{field}.http" if hook.http else field, "the app service does not run yet", "use exec: [...]")
    elif not hook.http:
        yield invalid(field, "there is nothing to call", "give http: METHOD /path, or exec: [command, ...]")
    elif not _HOOK.fullmatch(hook.http):
        yield invalid(f"{field}.http", f"{hook.http!r} is no hook", "write METHOD /path, such as: POST /hooks/quiesce")
    elif service.port is None:
        yield invalid(field, "a hook over HTTP needs a port", "give the app service a port")
    if not is_duration(hook.timeout_seconds, low=0.05):
        yield no_duration(f"{field}.timeout_seconds", hook.timeout_seconds)
