"""What a command would do here: the decision that it would meet, described and not stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from schemas import commands as cmd
from schemas import events as ev
from schemas.configuration import shown
from schemas.deployed import variables
from schemas.operations import Step
from schemas.planning import PlannedDataService, PlannedService, PlannedVariable, SitePlan, plan_digest
from schemas.problems import Problem, conflict
from schemas.values import Artifact
from site_agent.domain import instance as instances
from site_agent.domain import plans
from site_agent.domain.accepting import Decision
from site_agent.domain.decide import decide, unserved
from site_agent.domain.instance import AppService, DataService
from site_agent.domain.site import Draft, Site

KEEP = "keep"
TELLING = (
    plans.PROVISION, plans.RESTORE, plans.ATTACH, plans.DETACH, plans.DEPROVISION, plans.COPY, plans.DEPLOY, plans.STOP,
    plans.REMOVE, plans.QUIESCE, plans.DROP,
)  # fmt: skip
"""What of the steps about one part says what happens to it; the others only come along."""


def plan(
    site: Site, command: cmd.SiteCommand, *, target: str, arriving: Iterable[str] = ()
) -> SitePlan | list[Problem]:
    """The plan of ``command`` about ``target``, or all that speaks against it. The copies in ``arriving`` are taken
    to be here."""
    decision = decide(_with(site, arriving), command, id="plan", target=target)
    if isinstance(decision, Problem):
        everything = unserved(site, command)
        return everything if decision in everything else [decision, *everything]
    return describe(site, decision, target=target, sizes=_sizes(command))


def decide_as_planned(site: Site, command: cmd.SiteCommand, *, id: str, target: str) -> Decision:
    """The decision, unless the command says which plan it expects and it has become another."""
    decision = decide(site, command, id=id, target=target)
    if command.expected_plan is None or isinstance(decision, Problem):
        return decision
    if plan_digest(describe(site, decision, target=target, sizes=_sizes(command))) == command.expected_plan:
        return decision
    return conflict(
        "expected_plan", "what this would do is no longer what was planned", "look at the plan again, then repeat"
    )


def describe(site: Site, decision: Iterable[Draft], *, target: str, sizes: Mapping[str, int] | None = None) -> SitePlan:
    """What a decision to begin an operation fixes, without the ids that are made anew for every command.

    ``sizes`` is copy -> bytes.
    """
    accepted: ev.OperationAccepted | None = None
    instance = site.instances.get(target)
    begun: ev.InstanceDeploying | None = None
    for draft in decision:
        if isinstance(draft.event, ev.OperationAccepted):
            accepted = draft.event
        elif isinstance(draft.event, ev.InstanceDeploying):
            instance = instances.evolve(None, draft.id, draft.event)
            begun = draft.event
    assert accepted is not None, "only what starts an operation has a plan"
    steps = accepted.steps
    if instance is None:
        return SitePlan(kind=accepted.kind, name=accepted.name, site=site.name, steps=steps)
    return SitePlan(
        kind=accepted.kind,
        name=accepted.name,
        site=site.name,
        template=f"{instance.template.name}@{instance.template.version}",
        services=tuple(_service(one, steps) for one in instance.services.values()),
        data_services=tuple(_data_service(site, one, steps, sizes or {}) for one in instance.data_services.values()),
        changes=tuple(_changes(begun)) if begun and not begun.adopted else (),
        steps=steps,
    )


def _sizes(command: cmd.SiteCommand) -> dict[str, int]:
    if not isinstance(command, cmd.SiteRunImage):
        return {}
    return {part.copy: part.size for one in command.content.instances for part in one.parts}


def _with(site: Site, arriving: Iterable[str]) -> Site:
    expected = {
        f"arriving-{copy}": ev.LocationAdded(copy=copy, repository=f"{site.name}/arriving", image="")
        for copy in arriving
    }
    return replace(site, locations={**site.locations, **expected}) if expected else site


def _does(part: str, steps: Iterable[Step]) -> str:
    actions = [step.action for step in steps if step.part == part]
    return next((each for each in TELLING if each in actions), actions[0] if actions else KEEP)


def _service(service: AppService, steps: Iterable[Step]) -> PlannedService:
    return PlannedService(
        name=service.name,
        type=service.spec.type,
        does=_does(service.name, steps),
        platform=service.broker,
        artifact=_artifact(service.spec.artifact),
        artifact_digest=service.spec.artifact.digest,
    )


def _artifact(artifact: Artifact) -> str:
    what = artifact.image or artifact.wheel or artifact.directory or ""
    return f"{artifact.type} {what}".strip()


def _data_service(
    site: Site, service: DataService, steps: Iterable[Step], sizes: Mapping[str, int]
) -> PlannedDataService:
    broker = site.brokers.get(f"dsb-{service.broker}")
    offered = next((one for one in broker.plans if one.name == service.plan), None) if broker else None
    return PlannedDataService(
        name=service.name,
        type=service.spec.type,
        does=_does(service.name, steps),
        broker=service.broker,
        plan=service.plan,
        monthly_cost=offered.monthly_cost if offered else None,
        currency=offered.currency if offered else "",
        limits=offered.limits if offered else {},
        engine=f"{broker.engine} {broker.engine_version}".strip() if broker else "",
        copy=service.copy,
        bytes=sizes.get(service.copy) if service.copy else None,
    )


def _changes(begun: ev.InstanceDeploying) -> Iterable[PlannedVariable]:
    """Where a named environment or the instance's own values differ from what the template says without them."""
    written = variables(msgspec.structs.replace(begun, environment={}, environment_name=None))
    for service, values in sorted(variables(begun).items()):
        for name, each in values.items():
            was = written[service].get(name)
            if was is None or was.value != each.value:
                yield PlannedVariable(
                    service=service, name=name, value=shown(each.value), was=shown(was.value) if was else None
                )
