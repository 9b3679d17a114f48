"""A site in memory: the real decisions and the real saga, with results that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas import commands as cmd
from schemas import events as ev
from schemas import saga
from schemas.ids import new_id
from schemas.problems import Problem
from schemas.values import (
    Artifact,
    DataServiceSpec,
    Hook,
    Hooks,
    Plan,
    Requester,
    ServiceSpec,
    Template,
)
from site_agent.domain import consequences, plans
from site_agent.domain.decide import reject
from site_agent.domain.planning import decide_as_planned
from site_agent.domain.repositories import NO_POLICY, Policy
from site_agent.domain.site import Draft, Site

BY = Requester(principal="admin")

TEMPLATE = Template(
    name="shop",
    version="1.0.0",
    entrypoint="web",
    services={
        "web": ServiceSpec(
            type="public",
            artifact=Artifact(directory="/app", command=("python", "-m", "app")),
            port=8080,
            environment={"URI": "${db.uri}", "BUCKET": "${files.bucket}", "API": "${api.url}"},
            hooks=Hooks(quiesce=Hook(http="POST /quiesce"), thaw=Hook(http="POST /thaw")),
        ),
        "api": ServiceSpec(
            artifact=Artifact(directory="/api", command=("python", "-m", "api")),
            port=8081,
            environment={"URI": "${db.uri}"},
        ),
    },
    data_services={
        "db": DataServiceSpec(type="database", plan="small"),
        "files": DataServiceSpec(type="objectstore", broker="s3"),
    },
)

Results = Callable[[str, str], dict[str, Any] | Problem]


class World:
    """One site whose events are applied as they are decided, in batches, as the journal does."""

    def __init__(self) -> None:
        self.site = Site("north")
        self.events: list[Draft] = []
        self.performed: list[tuple[str, str, str]] = []
        self._apply(list(BROKERS))

    def tell(self, *drafts: Draft) -> None:
        """These happen."""
        self._apply(list(drafts))

    def send(
        self, command: cmd.SiteCommand, target: str, *, id: str | None = None, policy: Policy = NO_POLICY
    ) -> str | Problem:
        """The operation's id, or the problem that rejects the command."""
        id = id or new_id()
        if id in self.site.handled:
            return self.site.rejected.get(id, id)
        self.site.policy = policy
        decision = decide_as_planned(self.site, command, id=id, target=target)
        if isinstance(decision, Problem):
            self._apply(reject(id, command.TYPE, decision), causation=id)
            return decision
        self._apply(decision, causation=id)
        return id

    def run(self, operation: str, results: Results) -> saga.Operation:
        """Perform what the operation asks for until it ends."""
        for _ in range(500):
            now = self.site.operations[operation]
            effects = saga.react(now)
            if not effects:
                return now
            for effect in effects:
                self._perform(operation, effect, results)
        raise AssertionError("the operation did not end")

    def _perform(self, id: str, effect: saga.Effect, results: Results) -> None:
        now = self.site.operations[id]
        step = effect.step
        match effect:
            case saga.Retry(attempt=attempt):
                events = saga.retried(now, step.id, attempt)
            case saga.Undo():
                self.performed.append(("undo", step.undo or "", step.part))
                events = saga.undone(now, step.id)
            case saga.Do(attempt=attempt):
                self.performed.append(("do", step.action, step.part))
                result = results(step.action, step.part)
                if isinstance(result, Problem):
                    events = saga.failed(now, step.id, attempt, result)
                else:
                    events = saga.succeeded(now, step.id, attempt, result)
        self._apply(consequences.expand(self.site, id, events))

    def _apply(self, drafts: list[Draft], *, causation: str | None = None) -> None:
        for draft in drafts:
            self.events.append(draft)
            number = len(self.events)
            self.site.apply(
                draft.aggregate,
                draft.id,
                draft.event,
                time=f"2026-01-01T00:00:{number % 60:02d}.{number:06d}Z",
                sequence=number,
                causation=causation,
            )

    def states(self, aggregate: str, id: str) -> list[str]:
        """The names of the events of one aggregate, in order."""
        return [one.event.EVENT for one in self.events if (one.aggregate, one.id) == (aggregate, id)]


def _broker(kind: Any, name: str, *, types: tuple[str, ...], attributes: tuple[str, ...] = ()) -> Draft:
    event = ev.BrokerRegistered(
        kind=kind,
        name=name,
        version="1",
        types=types,
        plans=(Plan(name="small"),),
        attributes=attributes,
        can_attach=kind == "dsb" and name != "old",
    )
    return Draft("broker", f"{kind}-{name}", event)


BROKERS = (
    _broker("dsb", "postgres", types=("database",), attributes=("host", "uri", "password")),
    _broker("dsb", "s3", types=("objectstore",), attributes=("bucket", "secret_key")),
    _broker("psb", "process", types=("process",)),
    _broker("crb", "filesystem", types=("default",)),
    Draft("site", "north", ev.SiteAnnounced(version="1", seal_key="00")),
)
"""What a site has that can run the template and save it."""


def good(action: str, part: str) -> dict[str, Any] | Problem:
    """What well-behaved brokers answer."""
    match action:
        case plans.BIND:
            return {"binding": {"id": "b", "data_service": part, "attributes": {"host": "h"}}}
        case plans.DEPLOY:
            return {"url": f"http://localhost/{part}", "host": "localhost", "port": 1234}
        case plans.QUIESCE:
            return {"how": "hook"}
        case plans.PREPARE:
            return {"moment": "m", "level": "application"}
        case plans.COPY:
            return {"copied": {"copy_format": "f", "parts": []}}
        case plans.COMMIT | plans.FETCH:
            return {"summary": {"copy": part, "merkle_root": "r", "manifest_digest": "d", "size": 10, "stored": 4}}
    return {}


def deployed(world: World, *, name: str = "shop", template: Template = TEMPLATE) -> str:
    """The id of a running instance."""
    target = new_id()
    operation = world.send(cmd.SiteDeployInstance(by=BY, name=name, template=template), target)
    assert isinstance(operation, str)
    assert world.run(operation, good).state == "succeeded"
    return target
