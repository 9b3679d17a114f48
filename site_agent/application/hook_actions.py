"""What the steps of hooks do, around copies and restores."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, cast

from schemas import brokers as wire
from schemas.operations import Step
from schemas.problems import CalqueError
from schemas.saga import Operation
from schemas.values import Hook
from site_agent.adapters.brokers import Brokers
from site_agent.application.calls import Call, Result
from site_agent.application.environments import Environments, deployment
from site_agent.domain import plans
from site_agent.domain.instance import Instance
from site_agent.domain.site import Site

logger = logging.getLogger(__name__)

HOOK_STEPS: Final = (plans.BEFORE_COPY, plans.AFTER_COPY, plans.BEFORE_RESTORE, plans.AFTER_RESTORE)
"""The steps that run a hook at the platform, and may have to be stopped there."""


class HookActions:
    """The actions of one site that call hooks, by name. ``stop`` ends the attempts at a step that are under way."""

    def __init__(
        self,
        site: Callable[[], Site],
        *,
        brokers: Brokers,
        environments: Environments,
        stop: Callable[[Operation, Step], Awaitable[None]],
    ) -> None:
        self._site = site
        self._brokers = brokers
        self._environments = environments
        self._stop = stop
        self.actions: dict[str, Callable[[Call], Awaitable[Result]]] = {
            plans.BEFORE_COPY: self._before_copy,
            plans.AFTER_COPY: self._after_copy,
            plans.ARM: self._nothing,
            plans.BEFORE_RESTORE: self._before_restore,
            plans.AFTER_RESTORE: self._after_restore,
            plans.LET_BE: self._nothing,
        }

    async def _nothing(self, _call: Call) -> Result:
        return {}

    async def _before_copy(self, call: Call) -> Result:
        await self._run(call, "before_copy")
        return {}

    async def _after_copy(self, call: Call) -> Result:
        """As a step of the save, or as what ``arm`` is undone by. It can't fail the save: the copies are made."""
        operation = call.operation
        states = operation.steps
        undoing = operation.phase != "running"
        if undoing:
            if states[plans.step_id(plans.AFTER_COPY, call.part)].status == "done":
                return {}
            before = states.get(plans.step_id(plans.BEFORE_COPY, call.part))
            if before is not None:
                await self._stop(operation, before.step)
            await self._stop(operation, states[plans.step_id(plans.AFTER_COPY, call.part)].step)
        try:
            await self._run(call, "after_copy")
        except CalqueError as error:
            if error.problem.temporary and call.attempt < plans.HOOK_ATTEMPTS:
                raise
            logger.warning("%s after_copy of %s: %s", operation.id, call.part, error)
            return {"warning": error.problem.sentence()}
        return {}

    async def _before_restore(self, call: Call) -> Result:
        instance = self._instance(call)
        resolved = self._environments.resolved(instance, call.part, alone=True)
        await self._run(call, "before_restore", task=deployment(call, instance, resolved, site=self._site().name))
        return {}

    async def _after_restore(self, call: Call) -> Result:
        await self._run(call, "after_restore")
        return {}

    async def _run(self, call: Call, phase: wire.RunHookPhase, *, task: wire.DeployService | None = None) -> None:
        """Have the platform run the hook. What it prints stays there: it may be anything."""
        instance = self._instance(call)
        service = instance.services[call.part]
        request = wire.RunHook(
            id=call.id,
            operation=call.operation.id,
            instance=instance.id,
            service=call.part,
            phase=phase,
            hook=cast(Hook, getattr(service.spec.hooks, phase)),
            task=task,
        )
        await self._brokers.run("psb", service.broker, "run_hook", request, wire.HookRan)

    def _instance(self, call: Call) -> Instance:
        return self._site().instances[call.operation.accepted.target]
