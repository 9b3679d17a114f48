"""What each action of a step does: requests to brokers, each idempotent by the id of the attempt.

Actions hold no state. What they need is in the journal's state and in the secret store; what they answer is stored
with the step, so it never holds a secret.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from schemas import brokers as wire
from schemas.operations import Step, effect_id
from schemas.problems import Actor, CalqueError, permanent
from schemas.saga import Operation
from schemas.values import BrokerKind
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.secret_store import SecretStore
from site_agent.application.bindings import Bindings
from site_agent.application.bulk import Bulk
from site_agent.application.calls import Call, Result
from site_agent.application.environments import Environments, deployment, labels
from site_agent.application.existing import existing_of
from site_agent.application.grants import Grants
from site_agent.application.hook_actions import HOOK_STEPS, HookActions
from site_agent.application.masking_actions import MaskingActions, asked_of, masked_by
from site_agent.application.repository_actions import RepositoryActions
from site_agent.application.repository_watch import RepositoryWatch
from site_agent.application.site_secrets import SiteSecrets
from site_agent.domain import plans
from site_agent.domain.instance import Instance
from site_agent.domain.repositories import placed_at
from site_agent.domain.site import Site

MOMENT_SECONDS = plans.BULK_SECONDS

logger = logging.getLogger(__name__)


class Actions:
    """The actions of one site, by name."""

    def __init__(
        self,
        site: Callable[[], Site],
        *,
        brokers: Brokers,
        secrets: SecretStore,
        grants: Grants,
        given: SiteSecrets,
        repositories: RepositoryWatch,
        bulk: Bulk | None = None,
    ) -> None:
        """`bulk`: how many copies may be under way at once."""
        self._bulk = bulk or Bulk(0)
        self._site = site
        self._brokers = brokers
        self._bindings = Bindings(site, brokers=brokers, secrets=secrets, given=given)
        self._grants = grants
        self._given = given
        self._environments = Environments(self._bindings, given)
        self._masking = MaskingActions(secrets)
        self._actions: dict[str, Callable[[Call], Awaitable[Result]]] = {
            plans.PROVISION: self._provision,
            plans.RESTORE: self._restore,
            plans.DEPROVISION: self._deprovision,
            plans.ATTACH: self._attach,
            plans.DETACH: self._detach,
            plans.BIND: self._bind,
            plans.UNBIND: self._unbind,
            plans.DEPLOY: self._deploy,
            plans.STOP: self._stop,
            plans.REMOVE: self._remove,
            plans.STAGE: self._stage,
            plans.UNSTAGE: self._unstage,
            plans.QUIESCE: self._quiesce,
            plans.PREPARE: self._prepare,
            plans.THAW: self._thaw,
            plans.COPY: self._copy,
            plans.DISCARD: self._discard,
            **self._masking.actions,
            **HookActions(site, brokers=brokers, environments=self._environments, stop=self.stop_attempts).actions,
            **RepositoryActions(
                site, brokers=brokers, grants=grants, repositories=repositories, bulk=self._bulk
            ).actions,
        }
        assert self._actions.keys() == plans.ACTIONS

    async def perform(self, operation: Operation, step: Step, attempt: int) -> Result:
        """Do the step; raises :class:`CalqueError`."""
        call = Call(operation, step.part, effect_id(operation.id, step.id, attempt), attempt)
        return await self._actions[step.action](call)

    async def undo(self, operation: Operation, step: Step, attempt: int) -> None:
        """Take the step back, whatever its attempts have reached; raises :class:`CalqueError`."""
        assert step.undo is not None
        await self.stop_attempts(operation, step)
        id = effect_id(operation.id, f"{step.id}-undo", attempt)
        await self._actions[step.undo](Call(operation, step.part, id, attempt))

    async def stop_attempts(self, operation: Operation, step: Step) -> None:
        """Cancel the attempts at ``step`` that may still be under way at its broker."""
        broker = self._long_broker(operation, step)
        if broker is None:
            return
        for attempt in range(1, operation.steps[step.id].attempt + 1):
            id = effect_id(operation.id, step.id, attempt)
            await self._brokers.cancel(*broker, id, on=operation.id)

    def _long_broker(self, operation: Operation, step: Step) -> tuple[BrokerKind, str] | None:
        if step.action in (plans.RESTORE, plans.PROVISION, plans.ATTACH, plans.STAGE, plans.COPY):
            return "dsb", self._instance(operation).data_services[step.part].broker
        if step.action in (plans.DEPLOY, *HOOK_STEPS):
            return "psb", self._instance(operation).services[step.part].broker
        if step.action == plans.FETCH:
            return "crb", placed_at(operation.accepted.request, step.part)
        if step.action == plans.COLLECT:
            return "crb", step.part
        return None

    def _instance(self, operation: Operation) -> Instance:
        return self._site().instances[operation.accepted.target]

    # --- data services

    async def _provision(self, call: Call) -> Result:
        return await self._make(call, restore=None, copy_format=None)

    async def _restore(self, call: Call) -> Result:
        copy = self._instance(call.operation).data_services[call.part].copy
        assert copy is not None
        grant = await self._grants.read_here(copy, on=call.operation.id, attempt=call.attempt)
        try:
            return await self._make(call, restore=grant, copy_format=call.request["formats"][call.part])
        except CalqueError as error:
            others = len(self._site().holders(copy))
            if error.problem.temporary or call.attempt >= others:
                raise
            # what one repository can't deliver may lie sound in the next, which the next attempt reads from
            problem = msgspec.structs.replace(error.problem, actor=Actor.ENVIRONMENT, retry_after_seconds=0.0)
            raise CalqueError(problem) from error

    async def _make(self, call: Call, *, restore: wire.CopyGrant | None, copy_format: str | None) -> Result:
        instance = self._instance(call.operation)
        service = instance.data_services[call.part]
        request = wire.Provision(
            id=call.id,
            operation=call.operation.id,
            service_id=instance.service_id(call.part),
            type=service.spec.type,
            plan=service.plan,
            parameters=service.spec.parameters,
            labels=labels(instance, self._site().name, data_service=call.part),
            restore=restore,
            copy_format=copy_format,
        )
        async with self._bulk.turn(needed=restore is not None):
            made = await self._brokers.run("dsb", service.broker, "provision", request, wire.Provisioned)
        return {"resource": made.resource, "restored_bytes": made.restored_bytes, "method": made.method}

    async def _deprovision(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        service = instance.data_services[call.part]
        request = wire.Deprovision(id=call.id, operation=call.operation.id, service_id=instance.service_id(call.part))
        await self._brokers.run("dsb", service.broker, "deprovision", request, wire.Done)
        return {}

    async def _attach(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        service = instance.data_services[call.part]
        existing = self._existing(instance, call.part)
        assert existing is not None
        request = wire.Attach(
            id=call.id,
            operation=call.operation.id,
            service_id=instance.service_id(call.part),
            type=service.spec.type,
            existing=existing,
            labels=labels(instance, self._site().name, data_service=call.part),
        )
        found = await self._brokers.run("dsb", service.broker, "attach", request, wire.Attachable)
        return {"resource": found.resource}

    async def _detach(self, _call: Call) -> Result:
        return {}  # nothing was made at the broker, and nothing of the user's is ours to touch

    def _existing(self, instance: Instance, part: str) -> wire.Existing | None:
        return existing_of(instance.data_services[part], secrets=self._given)

    async def _bind(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        return await self._bindings.bind(instance, call.part, id=call.id, operation=call.operation.id)

    async def _unbind(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        await self._bindings.unbind(instance, call.part, id=call.id, operation=call.operation.id)
        return {}

    # --- app services

    async def _deploy(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        service = instance.services[call.part]
        request = deployment(call, instance, self._environments.resolved(instance, call.part), site=self._site().name)
        deployed = await self._brokers.run("psb", service.broker, "deploy", request, wire.Deployed)
        result: Result = msgspec.to_builtins(deployed)
        return result

    async def _stop(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        request = wire.ScaleService(
            id=call.id, operation=call.operation.id, instance=instance.id, service=call.part, replicas=0
        )
        await self._brokers.run("psb", instance.services[call.part].broker, "scale", request, wire.Done)
        return {}

    async def _remove(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        request = wire.RemoveService(id=call.id, operation=call.operation.id, instance=instance.id, service=call.part)
        await self._brokers.run("psb", instance.services[call.part].broker, "remove", request, wire.Done)
        return {}

    # --- consistency points and copies

    async def _stage(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        request = wire.StageCopy(
            id=call.id,
            operation=call.operation.id,
            service_id=instance.service_id(call.part),
            copy=call.request["copies"][call.part],
            existing=self._existing(instance, call.part),
            masking=asked_of(call),
            grant=await self._grant_ahead(call),
        )
        await self._brokers.run("dsb", instance.data_services[call.part].broker, "stage_copy", request, wire.Done)
        return {}

    async def _grant_ahead(self, call: Call) -> wire.CopyGrant | None:
        """The grant to write, if it can be had now. What is to be masked does not go anywhere before it is."""
        if asked_of(call) is not None:
            return None
        try:
            return await self._grant(call, masked=False)
        except CalqueError as error:
            # nothing is lost: the copy asks for its own
            logger.info("copy %s is not opened ahead: %s", call.request["copies"][call.part], error)
            return None

    async def _unstage(self, call: Call) -> Result:
        await self._discard(call)
        return await self._actions[plans.ABORT](call)

    async def _quiesce(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        service = instance.services[call.part]
        hook = service.spec.hooks.quiesce
        if hook is not None and service.spec.hooks.thaw is not None:
            request = wire.ExecHook(
                id=call.id,
                operation=call.operation.id,
                instance=instance.id,
                service=call.part,
                phase="quiesce",
                hook=hook,
                deadline_seconds=plans.HOLD_SECONDS,
            )
            await self._brokers.call("psb", service.broker, "exec_hook", request, wire.Held, on=call.operation.id)
            return {"how": "hook"}
        pause = wire.PauseService(
            id=call.id,
            operation=call.operation.id,
            instance=instance.id,
            service=call.part,
            deadline_seconds=plans.HOLD_SECONDS,
        )
        await self._brokers.call("psb", service.broker, "pause", pause, wire.Held, on=call.operation.id)
        return {"how": "pause"}

    async def _thaw(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        service = instance.services[call.part]
        hook = service.spec.hooks.thaw
        if hook is not None and service.spec.hooks.quiesce is not None:
            request = wire.ExecHook(
                id=call.id,
                operation=call.operation.id,
                instance=instance.id,
                service=call.part,
                phase="thaw",
                hook=hook,
            )
            held = await self._brokers.call(
                "psb", service.broker, "exec_hook", request, wire.Held, on=call.operation.id
            )
        else:
            # The pause is named: asked again, after a broker that died with the answer, it says how that one ended.
            quiesce = call.operation.steps[plans.step_id(plans.QUIESCE, call.part)]
            resume = wire.ResumeService(
                id=call.id,
                operation=call.operation.id,
                instance=instance.id,
                service=call.part,
                pause=effect_id(call.operation.id, quiesce.step.id, quiesce.attempt),
            )
            held = await self._brokers.call("psb", service.broker, "resume", resume, wire.Held, on=call.operation.id)
        if not held.held and call.operation.phase == "running":
            raise CalqueError(
                permanent(
                    "quiesce_lapsed",
                    f"writers went on before every moment was fixed: {held.message or 'the hold ended early'}",
                    field=call.part,
                    remedy="save again",
                )
            )
        return {}

    async def _prepare(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        request = wire.PrepareCopy(
            id=call.id,
            operation=call.operation.id,
            service_id=instance.service_id(call.part),
            copy=call.request["copies"][call.part],
            hold_seconds=MOMENT_SECONDS,
            existing=self._existing(instance, call.part),
            masking=asked_of(call),
        )
        broker = instance.data_services[call.part].broker
        prepared = await self._brokers.call("dsb", broker, "prepare_copy", request, wire.Prepared, on=call.operation.id)
        result: Result = {"moment": prepared.moment, "level": prepared.level}
        if prepared.left_out:
            result["warning"] = f"the copy of {call.part} is without: {'; '.join(prepared.left_out)}"
        return result

    async def _copy(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        service = instance.data_services[call.part]
        copy = call.request["copies"][call.part]
        order = self._masking.order(call)
        request = wire.CopyData(
            id=call.id,
            operation=call.operation.id,
            service_id=instance.service_id(call.part),
            copy=copy,
            grant=await self._grant(call, masked=order is not None),
            existing=self._existing(instance, call.part),
            masking=order,
        )
        async with self._bulk.turn():
            copied = await self._brokers.run("dsb", service.broker, "copy", request, wire.Copied)
        masked = masked_by(call, copied)
        result: Result = {"copied": msgspec.to_builtins(copied)}
        return result if masked is None else {**result, "masked": msgspec.to_builtins(masked)}

    async def _grant(self, call: Call, *, masked: bool) -> wire.CopyGrant:
        """Opens the copy at its repository, or again; the grant to write it."""
        instance = self._instance(call.operation)
        service = instance.data_services[call.part]
        copy = call.request["copies"][call.part]
        source = wire.CopySource(
            site=self._site().name,
            instance=instance.id,
            instance_name=instance.name,
            data_service=call.part,
            type=service.spec.type,
            broker=service.broker,
            image=call.request["image"],
            data_class=service.spec.data_class,
        )
        repository = placed_at(call.request, call.part)
        # What a masked copy holds depends on its rules and its key: it is taken on top of none.
        parent = "" if masked else self._site().copy_before(instance.id, call.part, repository=repository)
        opened = wire.OpenWrite(id=call.id, operation=call.operation.id, copy=copy, source=source, parent=parent)
        granted = await self._brokers.call("crb", repository, "open_write", opened, wire.Granted, on=call.operation.id)
        return msgspec.structs.replace(granted.grant, bytes_per_second=call.request.get("bytes_per_second", 0))

    async def _discard(self, call: Call) -> Result:
        instance = self._instance(call.operation)
        request = wire.DiscardCopy(id=call.id, operation=call.operation.id, copy=call.request["copies"][call.part])
        broker = instance.data_services[call.part].broker
        await self._brokers.call("dsb", broker, "discard_copy", request, wire.Done, on=call.operation.id)
        return {}
