"""Plans: what a command would do, decided as the command would be and asked of the sites, with nothing stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from hub.application import images, instances, templates
from hub.application.aggregates import load
from hub.application.context import Context
from hub.application.outcome import Forward
from hub.domain import catalog, claim
from hub.domain import images as domain
from hub.domain.claim import ClaimState
from hub.domain.images import Across
from hub.domain.received import HUB_COMMANDS, TEAM, Received
from hub.projections.views import image_facts
from schemas.commands import (
    Command,
    DeleteImage,
    DeployInstance,
    Planned,
    RunImage,
    SaveInstance,
    SiteCommand,
    SiteForgetImage,
    SiteTransferImage,
    choices,
)
from schemas.envelope import Envelope
from schemas.ids import new_id
from schemas.names import claim_token
from schemas.planning import (
    Candidate,
    PlanQuery,
    PlanView,
    SitePlan,
    SitePlanQuery,
    SitePlanView,
    Transfer,
    cost,
    plan_digest,
)
from schemas.problems import CalqueError, Problem, conflict, invalid
from schemas.values import ImageContent

PLANNABLE = {name: kind for name, kind in HUB_COMMANDS.items() if issubclass(kind, Planned | DeleteImage)}
NO_ONE = "plan"


class Planner:
    """Answers ``calque.qry.plan``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def plan(self, query: PlanQuery, envelope: Envelope) -> PlanView:
        """What the command would do, at the site that it names or at each of all. Raises :class:`CalqueError` for
        what is no command that can be planned, or when it is refused wherever it goes."""
        kind = PLANNABLE.get((query.aggregate, query.verb))
        if kind is None:
            known = ", ".join(f"{aggregate}.{verb}" for aggregate, verb in sorted(PLANNABLE))
            raise CalqueError(
                invalid("verb", f"there is no plan of {query.aggregate}.{query.verb}", f"use one of: {known}")
            )
        try:
            command = msgspec.convert(query.data, kind)
        except msgspec.ValidationError as error:
            raise CalqueError(invalid("data", str(error), "see the published schemas")) from None
        if isinstance(command, DeployInstance | RunImage):
            received = [
                _received(query, msgspec.structs.replace(command, site=site), envelope)
                for site in (self._sites() if query.anywhere else (command.site,))
            ]
            found = list(await asyncio.gather(*(self._one(each) for each in received)))
            name = command.name
        elif isinstance(command, DeleteImage):
            found, name = await self._forgotten(_received(query, command, envelope))
        else:
            found = [await self._one(_received(query, command, envelope))]
            name = found[0].plan.name if found[0].plan else query.target
        found.sort(key=lambda one: (not one.fits, one.site))
        return PlanView(verb=query.verb, name=name, candidates=tuple(found))

    def _sites(self) -> Iterable[str]:
        return sorted(site for site, state in self._context.site_states().items() if state != "retired")

    async def _one(self, received: Received) -> Candidate:
        if isinstance(received.command, RunImage):
            return await self._run(received, received.command)
        outcome = await _DECISIONS[received.kind](self._context, received)
        if isinstance(outcome, Problem):
            return self._refused(received, outcome, await self._lacking(received.command))
        return await self._asked(outcome.site, outcome.command, target=outcome.aggregate_id)

    async def _run(self, received: Received, command: RunImage) -> Candidate:
        way = images.find_way(self._context, received)
        if isinstance(way, Problem):
            image = image_facts(self._context.state, received.aggregate_id)
            content = image.content if image else None
            lacks = images.lacking_to_run(self._context, command, content) if content else []
            return self._refused(received, way, lacks)
        told = images.command_to_run(received, way.content)
        if not isinstance(way, Across):
            return await self._asked(command.site, told, target=command.instance)
        arriving = domain.copies_of(way.content)
        candidate = await self._asked(command.site, told, target=command.instance, arriving=arriving)
        if not candidate.fits:
            return candidate
        fetching = await self._asked(
            command.site,
            SiteTransferImage(by=received.by, content=way.content, source=way.source),
            target=received.aggregate_id,
        )
        if fetching.plan is None:
            return msgspec.structs.replace(candidate, fits=False, lacks=fetching.lacks, plan=None, digest="")
        return msgspec.structs.replace(candidate, transfer=_transfer(fetching.plan, way.content, source=way.source))

    async def _forgotten(self, received: Received) -> tuple[list[Candidate], str]:
        id = received.aggregate_id
        image = image_facts(self._context.state, id)
        if problem := domain.check_deletable(image, id, now=self._context.clock()):
            raise CalqueError(problem)
        assert image is not None
        assert image.content is not None
        told = SiteForgetImage(by=received.by, content=image.content)
        asked = await asyncio.gather(*(self._asked(site, told, target=id) for site in domain.holders(image)))
        return list(asked), image.name

    async def _asked(self, site: str, command: SiteCommand, *, target: str, arriving: Iterable[str] = ()) -> Candidate:
        """What the site says of a command to it."""
        state = self._context.site_states()[site]
        question = SitePlanQuery(
            type=command.TYPE, target=target, data=msgspec.to_builtins(command), arriving=tuple(arriving)
        )
        try:
            view = await self._context.outbound.ask_site(site, "plan", question, SitePlanView)
        except CalqueError as error:
            return Candidate(site=site, state=state, fits=False, lacks=(error.problem,))
        if view.plan is None:
            return Candidate(site=site, state=state, fits=False, lacks=view.lacks)
        monthly, currency = cost(view.plan)
        return Candidate(
            site=site,
            state=state,
            fits=True,
            plan=view.plan,
            monthly_cost=monthly,
            currency=currency,
            digest=plan_digest(view.plan),
        )

    async def _lacking(self, command: Command) -> list[Problem]:
        """All that the site lacks, where the decision names it in one breath."""
        if not isinstance(command, DeployInstance):
            return []
        template = await templates.find(self._context, command.template)
        if isinstance(template, Problem):
            return []
        return instances.check_values(self._context, template, choices(command), site=command.site)

    def _refused(self, received: Received, problem: Problem, lacks: Sequence[Problem]) -> Candidate:
        command = received.command
        if not isinstance(command, DeployInstance | RunImage) or command.site not in self._context.site_states():
            raise CalqueError(problem)
        state = self._context.site_states()[command.site]
        return Candidate(site=command.site, state=state, fits=False, lacks=tuple(lacks) or (problem,))


def _received(query: PlanQuery, command: Planned | DeleteImage, envelope: Envelope) -> Received:
    return Received(
        id=new_id(),
        principal=NO_ONE,
        aggregate=query.aggregate,
        aggregate_id=query.target,
        verb=query.verb,
        command=command,
        envelope=envelope,
    )


def _transfer(plan: SitePlan, content: ImageContent, *, source: str) -> Transfer:
    sizes: Mapping[str, int] = {part.data_service: part.stored for one in content.instances for part in one.parts}
    fetched = tuple(step.part for step in plan.steps if step.part in sizes)
    return Transfer(source=source, data_services=fetched, bytes=sum(sizes[each] for each in fetched), steps=plan.steps)


async def _save(context: Context, received: Received) -> Forward | Problem:
    command = received.command
    assert isinstance(command, SaveInstance)
    row = instances.instance_row(context, received.aggregate_id)
    if isinstance(row, Problem):
        return row
    if problem := catalog.check_save(command):
        return problem
    name = await load(context.events, "claim", claim_token(TEAM, instances.IMAGE, command.name))
    change = catalog.enter(
        None, name.fold(claim.evolve, ClaimState()), command, site=row.site, instance=row.id, by=received.by
    )
    return change if isinstance(change, Problem) else instances.forward_save(received, row)


async def _forwarded(
    decide: Callable[[Context, Received], Awaitable[object]], context: Context, received: Received
) -> Forward | Problem:
    outcome = await decide(context, received)
    if isinstance(outcome, Forward | Problem):
        return outcome
    return conflict("verb", f"{received.kind} has no plan")


_DECISIONS: dict[str, Callable[[Context, Received], Awaitable[Forward | Problem]]] = {
    "instance.deploy": lambda context, received: _forwarded(instances.deploy, context, received),
    "instance.stop": lambda context, received: _forwarded(instances.stop, context, received),
    "instance.start": lambda context, received: _forwarded(instances.start, context, received),
    "instance.delete": lambda context, received: _forwarded(instances.delete, context, received),
    "instance.save": _save,
}
"""Those of :data:`hub.application.commands.DECISIONS` that store nothing, and saving without its storing."""
