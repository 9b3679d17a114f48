"""What happens to one app, as hub and sites write it: told once by the real decisions, then again with other names.

A :class:`Story` holds the bytes of each event with the ids, names and times cut out; :meth:`Story.tell` fills in new
ones, so that a history of a million events takes seconds and every event of it is one that a site or hub could write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from hub.domain import images as hub_images
from schemas import commands as cmd
from schemas import events as ev
from schemas import saga, subjects
from schemas.envelope import encode, wrap
from schemas.names import claim_token, template_token
from schemas.operations import effect_id
from schemas.problems import Problem, permanent, temporary
from schemas.values import (
    Artifact,
    CopyPart,
    DataServiceSpec,
    HealthCheck,
    Hook,
    Hooks,
    ImageContent,
    Plan,
    Requester,
    ServiceSpec,
    Template,
)
from site_agent.domain import consequences, plans
from site_agent.domain.decide import decide, reject
from site_agent.domain.site import Draft, Site

BY = Requester(principal="admin")
HOME, AWAY = "zz-site-home", "zz-site-away"
APP, OTHER_APP, IMAGE_NAME = "zz-app", "zz-other-app", "zz-image"
TIME = "2026-01-01T00:00:00.000000Z"
DIGEST = "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"
ATTRIBUTES = ("host", "port", "database", "user", "password", "uri", "endpoint", "bucket", "access_key", "secret_key")
_ID = "00000000-0000-7000-8000-{:012x}"
_MARKS = re.compile(
    rb"00000000-0000-7000-8000-([0-9a-f]{12})|(zz-site-home|zz-site-away|zz-app|zz-other-app|zz-image)|"
    rb"(2026-01-01T00:00:00\.000000Z)"
)
NAMED = (HOME, AWAY, APP, OTHER_APP, IMAGE_NAME)

SMALL = Template(
    name="tally",
    version="1.0.0",
    entrypoint="web",
    services={
        "web": ServiceSpec(
            type="public",
            artifact=Artifact(directory="/srv/tally", command=("python", "-m", "app"), digest=DIGEST),
            port=8080,
            environment={"URI": "${db.uri}"},
            health=HealthCheck(path="/healthz"),
        )
    },
    data_services={"db": DataServiceSpec(type="database", broker="postgres", plan="small")},
)
BIG = Template(
    name="shop",
    version="2.3.0",
    entrypoint="web",
    description="Goods, orders and their documents",
    services={
        "web": ServiceSpec(
            type="public",
            artifact=Artifact(directory="/srv/shop/web", command=("python", "-m", "web"), digest=DIGEST),
            port=8080,
            environment={"TITLE": "Shop", "API": "${api.url}", "BUCKET": "${docs.bucket}"},
            health=HealthCheck(path="/healthz"),
            hooks=Hooks(quiesce=Hook(http="POST /hooks/quiesce"), thaw=Hook(http="POST /hooks/thaw")),
        ),
        "api": ServiceSpec(
            artifact=Artifact(directory="/srv/shop/api", command=("python", "-m", "api"), digest=DIGEST),
            port=8081,
            environment={
                "ORDERS_URI": "${orders.uri}",
                "DOCS_ENDPOINT": "${docs.endpoint}",
                "DOCS_BUCKET": "${docs.bucket}",
            },
            health=HealthCheck(path="/healthz"),
        ),
    },
    data_services={
        "orders": DataServiceSpec(type="database", broker="postgres", plan="small"),
        "docs": DataServiceSpec(type="objectstore", broker="s3", plan="small"),
    },
)


class Event(NamedTuple):
    """One event of a story with its blanks: ``%`` formats of subject and payload, and what fills them."""

    subject: bytes
    payload: bytes
    of_subject: Callable[[list[bytes]], Any]
    of_payload: Callable[[list[bytes]], Any]


@dataclass(frozen=True)
class Story:
    """``groups`` are appended at once each; ``ids`` is how many new ids a telling needs."""

    groups: tuple[tuple[Event, ...], ...]
    ids: int

    @property
    def events(self) -> int:
        """How many events one telling has."""
        return sum(map(len, self.groups))

    def tell(
        self, *, names: Iterable[str], ids: Iterable[str], times: Iterator[str]
    ) -> Iterator[list[tuple[str, bytes]]]:
        """Subject and payload of each event, group by group. ``names`` are those of both sites, both apps and the
        image; ``times`` gives the moment of each group."""
        values = [b"", *(each.encode() for each in names), *(each.encode() for each in ids)]
        for group in self.groups:
            values[0] = next(times).encode()
            yield [
                ((one.subject % one.of_subject(values)).decode(), one.payload % one.of_payload(values)) for one in group
            ]


class Author:
    """Writes a story by having it happen at two sites in memory, and at the hub."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.sites = {HOME: Site(HOME), AWAY: Site(AWAY)}
        self.groups: list[list[tuple[bytes, bytes]]] = []
        self._ids = 0
        self._sequence = 0
        for name in self.sites:
            self._take(name, [draft for group in introduction(name) for draft in group])

    def id(self) -> str:
        """A new id: blank in the story."""
        self._ids += 1
        return _ID.format(self._ids - 1)

    def story(self, *, without: Sequence[str] = ()) -> Story:
        """All that was written so far, but for some aggregates."""
        groups = (
            tuple(_cut(one) for one in group if one[0].split(b".")[3].decode() not in without) for group in self.groups
        )
        return Story(tuple(group for group in groups if group), self._ids)

    # --- what happens

    def forward(self, site: str, command: cmd.SiteCommand, target: str) -> str:
        """The hub passes a command on, the site takes it up or rejects it; the operation's id."""
        id = self.id()
        forwarded = ev.CommandForwarded(site=site, target=target, type=command.TYPE, data=msgspec.to_builtins(command))
        self.hub([Draft("command", id, forwarded)], causation=id)
        self.send(site, command, target, id=id)
        return id

    def send(self, site: str, command: cmd.SiteCommand, target: str, *, id: str) -> None:
        """A command reaches the site."""
        decision = decide(self.sites[site], command, id=id, target=target)
        if isinstance(decision, Problem):
            self.write(site, reject(id, command.TYPE, decision), causation=id)
        else:
            replyto = f"_INBOX.admin.{id}"
            self.write(site, decision, operation=id, causation=id, replyto=replyto)

    def carry_out(self, site: str, id: str, *, broken: str | None = None, flaky: str | None = None) -> None:
        """The site's operation runs to its end; the action ``broken`` fails for good, ``flaky`` once."""
        tried: set[str] = set()
        while effects := saga.react(self.sites[site].operations[id]):
            for effect in effects:
                now = self.sites[site].operations[id]
                step = effect.step
                match effect:
                    case saga.Retry(attempt=attempt):
                        events = saga.retried(now, step.id, attempt)
                    case saga.Undo():
                        events = saga.undone(now, step.id)
                    case saga.Do(attempt=attempt) if step.action == broken:
                        events = saga.failed(now, step.id, attempt, permanent("disk_full", "no space is left"))
                    case saga.Do(attempt=attempt) if step.action == flaky and step.id not in tried:
                        tried.add(step.id)
                        problem = temporary("unavailable", f"{step.part} does not answer", retry_after_seconds=2.0)
                        events = saga.failed(now, step.id, attempt, problem)
                    case saga.Do(attempt=attempt):
                        events = saga.succeeded(now, step.id, attempt, self._result(site, id, step.action, step.part))
                self.write(site, consequences.expand(self.sites[site], id, events), operation=id)

    def change(self, site: str, target: str, *events: ev.Event) -> None:
        """The site notices something about an instance."""
        for event in events:
            self.write(site, [Draft("instance", target, event)])

    def hub(self, drafts: Iterable[Draft], *, operation: str | None = None, causation: str | None = None) -> None:
        """The hub appends to its own stream."""
        self.write(subjects.HUB, drafts, operation=operation, causation=causation)

    def write(
        self,
        writer: str,
        drafts: Iterable[Draft],
        *,
        operation: str | None = None,
        causation: str | None = None,
        replyto: str | None = None,
    ) -> None:
        """Append a group of events."""
        taken = list(drafts)
        group: list[tuple[bytes, bytes]] = []
        for draft in taken:
            subject = subjects.event(writer=writer, aggregate=draft.aggregate, id=draft.id, event=draft.event.EVENT)
            envelope = wrap(
                draft.event,
                id=f"{writer}/{self.id()}",
                source=writer,
                time=TIME,
                subject=f"{draft.aggregate}/{draft.id}",
                operationid=operation,
                causationid=causation,
                replyto=replyto,
            )
            group.append((subject.encode(), encode(envelope)))
        if group:
            self.groups.append(group)
        if writer in self.sites:
            self._take(writer, taken, causation=causation)

    def _take(self, site: str, drafts: Iterable[Draft], *, causation: str | None = None) -> None:
        for aggregate, id, event in drafts:
            self._sequence += 1
            self.sites[site].apply(aggregate, id, event, time=TIME, sequence=self._sequence, causation=causation)

    def _result(self, site: str, operation: str, action: str, part: str) -> dict[str, Any]:
        match action:
            case plans.PROVISION | plans.RESTORE:
                return {"resource": {"database": f"calque_{part}_7f3a", "server": "127.0.0.1:5432"}}
            case plans.BIND:
                return {
                    "binding": {
                        "id": self.id(),
                        "data_service": part,
                        "attributes": {"host": "127.0.0.1", "port": "5432", "database": f"calque_{part}_7f3a"},
                        "secret_refs": {"password": f"{part}/password", "uri": f"{part}/uri"},
                    }
                }
            case plans.DEPLOY:
                return {"url": f"http://127.0.0.1:28080/{part}", "host": "127.0.0.1", "port": 28080}
            case plans.QUIESCE:
                return {"how": "hook"}
            case plans.PREPARE:
                return {"moment": TIME, "level": "application"}
            case plans.COPY:
                return {"copied": {"copy_format": "calque.dump.v1", "engine": "postgres", "engine_version": "18.1"}}
            case plans.COMMIT | plans.FETCH:
                request = self.sites[site].operations[operation].accepted.request
                part_of = CopyPart(name="data", media_type="application/zstd", size=81920, digest=DIGEST)
                return {
                    "summary": {
                        "copy": request["copies"][part],
                        "merkle_root": DIGEST,
                        "manifest_digest": DIGEST,
                        "size": 81920,
                        "stored": 20480,
                        "parts": [msgspec.to_builtins(part_of)],
                    }
                }
        return {}


def introduction(site: str) -> list[list[Draft]]:
    """What a site tells when it joins."""

    def broker(kind: Any, name: str, types: tuple[str, ...], **more: Any) -> list[Draft]:
        event = ev.BrokerRegistered(
            kind=kind, name=name, version="0.2.0", types=types, plans=(Plan(name="small", monthly_cost=5.0),), **more
        )
        return [Draft("broker", f"{kind}-{name}", event)]

    return [
        [Draft("site", site, ev.SiteAnnounced(version="0.2.0", seal_key=DIGEST, crb_fingerprint=DIGEST))],
        broker("dsb", "postgres", ("database",), attributes=ATTRIBUTES, copy_formats=("calque.dump.v1",)),
        broker("dsb", "s3", ("objectstore",), attributes=ATTRIBUTES, copy_formats=("calque.dump.v1",)),
        broker("psb", "process", ("process",)),
        broker("crb", "filesystem", ("default",), protocols=("https",)),
    ]


def joining() -> Story:
    """A site that the hub hears of for the first time: ``HOME``."""
    author = Author(SMALL)
    author.hub([Draft("membership", HOME, event) for event in (ev.SiteJoined(), ev.SiteOnline())])
    for drafts in introduction(HOME):
        author.write(HOME, drafts)
    return author.story()


def applied(template: Template) -> Story:
    """A template version becomes known."""
    author = Author(template)
    event = ev.TemplateApplied(template=template, digest=DIGEST, by=BY)
    author.hub([Draft("template", template_token(template.name, template.version), event)], causation=author.id())
    return author.story()


# --- chapters, of which the lives of apps are made


def deployed(author: Author, *, flaky: str | None = None, broken: str | None = None) -> str:
    """The app runs at home; its instance."""
    instance = author.id()
    command = cmd.SiteDeployInstance(by=BY, name=APP, template=author.template)
    author.carry_out(HOME, author.forward(HOME, command, instance), flaky=flaky, broken=broken)
    return instance


def saved(author: Author, instance: str, *, broken: str | None = None) -> ImageContent | None:
    """An image of the app, with the hub's entry of it; ``None`` when it came to nothing."""
    image, claim = author.id(), author.id()
    name = f"{IMAGE_NAME}-{image}"
    entered = ev.CatalogEntered(name=name, site=HOME, instance=instance, by=BY, tags=("nightly",))
    token = claim_token("default", "image", claim)
    author.hub(
        [Draft("catalog", image, entered), Draft("claim", token, ev.ClaimTaken(owner=image))], causation=author.id()
    )
    copies = {name: author.id() for name in author.template.data_services}
    operation = author.forward(HOME, cmd.SiteSaveInstance(by=BY, image=image, copies=copies), instance)
    author.carry_out(HOME, operation, broken=broken)
    made = author.sites[HOME].images[image]
    if made.content is None:
        withdrawn = ev.CatalogWithdrawn(problem=made.problem)
        released = Draft("claim", token, ev.ClaimReleased(owner=image))
        author.hub([Draft("catalog", image, withdrawn), released], causation=operation)
    return made.content


def run_here(author: Author, content: ImageContent) -> str:
    """A second app from the image, at home."""
    instance = author.id()
    command = cmd.SiteRunImage(by=BY, name=OTHER_APP, content=content)
    author.carry_out(HOME, author.forward(HOME, command, instance))
    return instance


def run_away(author: Author, content: ImageContent) -> str:
    """The image is brought to the other site and runs there: a saga of the hub with two children."""
    instance, id = author.id(), author.id()
    command = cmd.RunImage(instance=instance, name=OTHER_APP, site=AWAY)
    accepted = hub_images.plan_run(command, image=content.image, way=hub_images.Across(content, HOME), by=BY)
    operation: saga.Operation | None = None

    def store(events: list[ev.Event], causation: str | None = None) -> saga.Operation:
        nonlocal operation
        author.hub([Draft("operation", id, event) for event in events], operation=id, causation=causation)
        for event in events:
            operation = saga.evolve(operation, id, event)
        assert operation is not None
        return operation

    now = store(saga.accept(accepted), id)
    for step in accepted.steps:
        child = effect_id(id, step.id, 1)
        told: cmd.SiteCommand
        if step.action == hub_images.TRANSFER:
            told = cmd.SiteTransferImage(by=BY, parent=id, content=content, source=HOME)
            author.send(AWAY, told, content.image, id=child)
        else:
            told = cmd.SiteRunImage(by=BY, parent=id, name=OTHER_APP, content=content)
            author.send(AWAY, told, instance, id=child)
        author.carry_out(AWAY, child)
        now = store(saga.succeeded(now, step.id, 1, {}))
    return instance


def told(author: Author, site: str, instance: str, *commands: type[cmd.SiteCommand]) -> None:
    """Commands without a content of their own, carried out one after the other."""
    for kind in commands:
        author.carry_out(site, author.forward(site, kind(by=BY), instance))


def restless(author: Author, site: str, instance: str, times: int) -> None:
    """Probes that change their mind."""
    for _ in range(times):
        author.change(
            site,
            instance,
            ev.ServiceHealthChanged(service="web", healthy=False, message="GET /healthz: connection refused"),
            ev.InstanceDegraded(message="web: GET /healthz: connection refused"),
            ev.ServiceHealthChanged(service="web", healthy=True),
            ev.InstanceRunning(url="http://127.0.0.1:28080/web"),
        )


# --- whole lives


def every_build(template: Template) -> Story:
    """Deployed, saved, deleted: what CI does."""
    author = Author(template)
    instance = deployed(author)
    saved(author, instance)
    told(author, HOME, instance, cmd.SiteDeleteInstance)
    return author.story()


def before_upgrades(template: Template) -> Story:
    """Long-lived: saved again and again, stopped and started, sometimes not well."""
    author = Author(template)
    instance = deployed(author, flaky=plans.PROVISION)
    for _ in range(3):
        saved(author, instance)
        told(author, HOME, instance, cmd.SiteStopInstance, cmd.SiteStartInstance)
        restless(author, HOME, instance, 2)
    return author.story()


def bug_hunt(template: Template) -> Story:
    """Frozen by a tester, run beside the original, handed to somebody at another site, cleaned away."""
    author = Author(template)
    instance = deployed(author)
    content = saved(author, instance)
    assert content is not None
    beside = run_here(author, content)
    away = run_away(author, content)
    restless(author, AWAY, away, 1)
    told(author, HOME, beside, cmd.SiteDeleteInstance)
    told(author, AWAY, away, cmd.SiteStopInstance, cmd.SiteDeleteInstance)
    return author.story()


def misfortune(template: Template) -> Story:
    """A deploy that fails and is undone, a save that fails, a command that is refused."""
    author = Author(template)
    failed = deployed(author, broken=plans.DEPLOY)
    author.forward(HOME, cmd.SiteStopInstance(by=BY), failed)
    instance = deployed(author, flaky=plans.BIND)
    saved(author, instance, broken=plans.COPY)
    return author.story()


def kept(template: Template, images: int, *, operations: bool = True) -> Story:
    """Deployed, saved some times, running: one app of many. Without ``operations``, only what came of them."""
    author = Author(template)
    instance = deployed(author)
    for _ in range(images):
        saved(author, instance)
    return author.story(without=() if operations else ("operation", "command"))


def _cut(one: tuple[bytes, bytes]) -> Event:
    subject, of_subject = _blanks(one[0])
    payload, of_payload = _blanks(one[1])
    return Event(subject, payload, of_subject, of_payload)


def _blanks(text: bytes) -> tuple[bytes, Callable[[list[bytes]], Any]]:
    """``text`` as a format, and what picks its values out of those of a telling."""
    slots: list[int] = []

    def blank(mark: re.Match[bytes]) -> bytes:
        id, name, _ = mark.groups()
        if id is not None:
            slots.append(1 + len(NAMED) + int(id, 16))
        else:
            slots.append(0 if name is None else 1 + NAMED.index(name.decode()))
        return b"%b"

    form = _MARKS.sub(blank, text.replace(b"%", b"%%"))
    return form, itemgetter(*slots) if slots else _nothing


def _nothing(_values: list[bytes]) -> tuple[()]:
    return ()
