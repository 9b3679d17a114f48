"""Plans: which steps an operation of a site is made of. Pure functions of the template and the instance.

A step's id is ``<action>-<part>``. What each action does is said in :mod:`site_agent.application.actions`; its
name stands here once, so that plans, consequences and actions can't drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypedDict

from schemas.configuration import named
from schemas.operations import Step
from schemas.template_order import needs
from schemas.values import Hook, ServiceSpec, Template
from site_agent.domain.instance import Instance

PROVISION: Final = "provision"
RESTORE: Final = "restore"
DEPROVISION: Final = "deprovision"
ATTACH: Final = "attach"
DETACH: Final = "detach"
BIND: Final = "bind"
UNBIND: Final = "unbind"
DEPLOY: Final = "deploy"
STOP: Final = "stop"
REMOVE: Final = "remove"
STAGE: Final = "stage"
UNSTAGE: Final = "unstage"
QUIESCE: Final = "quiesce"
PREPARE: Final = "prepare"
THAW: Final = "thaw"
COPY: Final = "copy"
ABORT: Final = "abort"
COMMIT: Final = "commit"
DROP: Final = "drop"
DISCARD: Final = "discard"
RECORD: Final = "record"
FORGET: Final = "forget"
FETCH: Final = "fetch"
SCAN: Final = "scan"
VERIFY: Final = "verify"
COLLECT: Final = "collect"
MAKE_KEY: Final = "make_key"
DROP_KEY: Final = "drop_key"

BEFORE_COPY: Final = "before_copy"
AFTER_COPY: Final = "after_copy"
ARM: Final = "arm"
BEFORE_RESTORE: Final = "before_restore"
AFTER_RESTORE: Final = "after_restore"
LET_BE: Final = "let_be"

ACTIONS: Final = frozenset(
    {
        PROVISION, RESTORE, DEPROVISION, ATTACH, DETACH, BIND, UNBIND, DEPLOY, STOP, REMOVE, STAGE, UNSTAGE, QUIESCE,
        PREPARE, THAW, COPY, ABORT, COMMIT, DROP, DISCARD, RECORD, FORGET, FETCH, SCAN, VERIFY, COLLECT,
        MAKE_KEY, DROP_KEY,
        BEFORE_COPY, AFTER_COPY, ARM, BEFORE_RESTORE, AFTER_RESTORE, LET_BE,
    }
)  # fmt: skip

HOLD_SECONDS: Final = 30.0
"""Writers are let go after this time whatever happens; the steps between quiesce and thaw fit into it."""

HOOK_ATTEMPTS: Final = 3
"""How often a hook is called that the environment lets fail: it timed out, its service was away."""

BULK_SECONDS: Final = 6 * 3600.0


def step_id(action: str, part: str) -> str:
    """The id of a step."""
    return f"{action}-{part}"


def ids(action: str, parts: Iterable[str]) -> tuple[str, ...]:
    """The ids of one action's steps over several parts."""
    return tuple(step_id(action, part) for part in parts)


def deploy(
    template: Template,
    *,
    restored: Iterable[str] = (),
    attached: Iterable[str] = (),
    from_image: bool = False,
) -> tuple[Step, ...]:
    """Data services (blank, from copies, or those that are there), their bindings, then app services in the order of
    their needs. From an image, the hooks of a restore run between them: before the first app service starts, and when
    all are well."""
    from_copies, existing = set(restored), set(attached)
    steps: list[Step] = []
    for name in template.data_services:
        action = ATTACH if name in existing else RESTORE if name in from_copies else PROVISION
        seconds = BULK_SECONDS if action == RESTORE else 120.0
        undo = DETACH if action == ATTACH else DEPROVISION
        steps.append(_step(action, name, undo=undo, timeout_seconds=seconds))
        steps.append(_step(BIND, name, needs=(step_id(action, name),), undo=UNBIND, timeout_seconds=30.0))
    if not from_image:
        return (*steps, *_deploy_services(template.services, undo=REMOVE))
    before = [
        _step(BEFORE_RESTORE, name, needs=ids(BIND, template.data_services), undo=REMOVE, **_of_hook(hook))
        for name, hook in hooks(template, BEFORE_RESTORE).items()
    ]
    deployed = _deploy_services(template.services, undo=REMOVE, first=tuple(step.id for step in before))
    after = [
        _step(AFTER_RESTORE, name, needs=ids(DEPLOY, template.services), undo=LET_BE, **_of_hook(hook))
        for name, hook in hooks(template, AFTER_RESTORE).items()
    ]
    return (*steps, *before, *deployed, *after)


def hooks(template: Template, phase: str) -> dict[str, Hook]:
    """The app services that have a hook of ``phase``, and it."""
    found = {name: getattr(spec.hooks, phase) for name, spec in template.services.items()}
    return {name: hook for name, hook in found.items() if hook is not None}


def start(instance: Instance) -> tuple[Step, ...]:
    """App services in the order of their needs. Bindings are there; those of attached data services are made again,
    since their credentials are the user's and may have changed."""
    existing = [name for name, service in instance.data_services.items() if service.attached]
    steps = [_step(BIND, name, timeout_seconds=30.0) for name in existing]
    first = ids(BIND, existing)
    return (*steps, *_deploy_services(instance.template.services, undo=STOP, bound=False, first=first))


def stop(template: Template) -> tuple[Step, ...]:
    """App services, those that others need last."""
    return tuple(_take_down(template.services, STOP))


def delete(instance: Instance) -> tuple[Step, ...]:
    """App services, then bindings, then data services with their data; attached ones are let go of and stay as they
    are. Repeated, not undone, when it fails."""
    template = instance.template
    steps = _take_down(template.services, REMOVE)
    gone = tuple(step.id for step in steps)
    for name, service in instance.data_services.items():
        if service.broker:
            steps.append(_step(UNBIND, name, needs=gone, attempts=20))
            last = DETACH if service.attached else DEPROVISION
            steps.append(_step(last, name, needs=(step_id(UNBIND, name),), attempts=20))
    return tuple(steps)


def writers(template: Template) -> tuple[str, ...]:
    """The app services that reach a data service, and so have to be still while its moment is fixed."""
    return tuple(name for name, spec in template.services.items() if _reaches_data(spec, template))


def save(instance: Instance, *, masked: bool = False) -> tuple[Step, ...]:
    """Stage, quiesce, prepare, thaw, copy, commit, and the image's manifest beside the copies; around it the hooks of
    a copy.

    ``arm`` does nothing. Its undo is the hook that runs after the copy: it begins together with the hook before the
    copy and nothing is built on it, so however the save goes back, that hook runs, and waits for nothing else.

    A stage may open the copy at its repository already, so its undo lets go of both ends.

    A ``masked`` save has a key, made before the first copy begins and forgotten when all are made.
    """
    template = instance.template
    data = tuple(template.data_services)
    running = instance.state in ("running", "degraded")
    held = writers(template) if running else ()
    before_copy = hooks(template, BEFORE_COPY) if running else {}
    after_copy = hooks(template, AFTER_COPY) if running else {}
    steps: list[Step] = [_step(ARM, name, undo=AFTER_COPY) for name in after_copy]
    keyed: tuple[str, ...] = ()
    if masked:
        steps.append(_step(MAKE_KEY, "image", undo=DROP_KEY))
        keyed = ids(MAKE_KEY, ("image",))
    steps += [_step(BEFORE_COPY, name, undo=LET_BE, **_of_hook(hook)) for name, hook in before_copy.items()]
    first = ids(BEFORE_COPY, before_copy)
    steps += [_step(STAGE, name, needs=first, undo=UNSTAGE, timeout_seconds=BULK_SECONDS) for name in data]
    staged = ids(STAGE, data) or first
    steps += [_step(QUIESCE, name, needs=staged, undo=THAW, attempts=1, timeout_seconds=12.0) for name in held]
    before = ids(QUIESCE, held) or staged
    steps += [_step(PREPARE, name, needs=before, undo=DISCARD, attempts=1, timeout_seconds=12.0) for name in data]
    prepared = ids(PREPARE, data) or before
    steps += [_step(THAW, name, needs=prepared, attempts=20, timeout_seconds=12.0) for name in held]
    thawed = ids(THAW, held) or prepared
    for name in data:
        steps.append(_step(COPY, name, needs=(*thawed, *keyed), undo=ABORT, attempts=3, timeout_seconds=BULK_SECONDS))
        steps.append(_step(DISCARD, name, needs=ids(COPY, (name,)), timeout_seconds=30.0))
        steps.append(_step(COMMIT, name, needs=ids(COPY, (name,)), undo=DROP, timeout_seconds=BULK_SECONDS))
    copied = ids(COPY, data) or thawed
    if masked:
        steps.append(_step(DROP_KEY, "image", needs=(*copied, *keyed)))
    steps += [_step(AFTER_COPY, name, needs=copied, undo=LET_BE, **_of_hook(hook)) for name, hook in after_copy.items()]
    steps.append(_step(RECORD, "image", needs=ids(COMMIT, data) or thawed, undo=FORGET, timeout_seconds=30.0))
    return tuple(steps)


def transfer(missing: Iterable[str]) -> tuple[Step, ...]:
    """Fetch the copies of the data services that are ``missing`` here, then the image's manifest stands beside them."""
    wanted = tuple(missing)
    steps = [_step(FETCH, name, undo=DROP, attempts=10, timeout_seconds=BULK_SECONDS) for name in wanted]
    undo = FORGET if wanted else None  # with nothing missing the image is here already, and its manifest stays
    return (*steps, _step(RECORD, "image", needs=ids(FETCH, wanted), undo=undo, timeout_seconds=30.0))


def forget(held: Iterable[str]) -> tuple[Step, ...]:
    """Remove the image's manifest, then the copies of the data services that are ``held`` here."""
    first = _step(FORGET, "image", attempts=20, timeout_seconds=30.0)
    return (first, *(_step(DROP, name, needs=(first.id,), attempts=20, timeout_seconds=600.0) for name in held))


def tend(action: str, repository: str) -> tuple[Step, ...]:
    """One step about a whole repository: ``scan``, ``verify`` or ``collect``."""
    return (_step(action, repository, timeout_seconds=BULK_SECONDS),)


def _step(
    action: str,
    part: str,
    *,
    needs: tuple[str, ...] = (),
    undo: str | None = None,
    attempts: int = 5,
    timeout_seconds: float = 120.0,
) -> Step:
    return Step(
        id=step_id(action, part),
        action=action,
        part=part,
        needs=needs,
        undo=undo,
        attempts=attempts,
        timeout_seconds=timeout_seconds,
    )


class _HookTimes(TypedDict):
    attempts: int
    timeout_seconds: float


def _of_hook(hook: Hook) -> _HookTimes:
    return {"attempts": HOOK_ATTEMPTS, "timeout_seconds": hook.timeout_seconds + 60.0}


def _deploy_services(
    services: dict[str, ServiceSpec], *, undo: str, bound: bool = True, first: tuple[str, ...] = ()
) -> list[Step]:
    steps: list[Step] = []
    wanted = needs(services)
    for name, spec in services.items():
        bindings = ids(BIND, _data_references(spec, services)) if bound else ()
        seconds = 30.0 + (spec.health.start_period_seconds if spec.health else 60.0)
        steps.append(
            _step(
                DEPLOY,
                name,
                needs=(*first, *bindings, *ids(DEPLOY, wanted[name])),
                undo=undo,
                timeout_seconds=seconds,
            )
        )
    return steps


def _take_down(services: dict[str, ServiceSpec], action: str) -> list[Step]:
    wanted = needs(services)
    steps: list[Step] = []
    for name, spec in services.items():
        users = tuple(user for user, needed in wanted.items() if name in needed)
        steps.append(
            _step(action, name, needs=ids(action, users), attempts=20, timeout_seconds=30.0 + spec.stop_grace_seconds)
        )
    return steps


def _data_references(spec: ServiceSpec, services: dict[str, ServiceSpec]) -> tuple[str, ...]:
    used = {name for value in spec.environment.values() for name in named(value)} | set(spec.wants)
    return tuple(sorted(used - services.keys()))


def _reaches_data(spec: ServiceSpec, template: Template) -> bool:
    return any(name in template.data_services for name in _data_references(spec, template.services))
