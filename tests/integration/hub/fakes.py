"""A site that does what a test tells it: it answers commands by writing to its own outbox.

On one server without accounts, ``EVENTS`` sources the outbox directly: what joins servers is tested elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bus.connection import Bus
from bus.ending import end
from bus.events import Conflict, EventStore, NewEvent
from bus.jetstream import JetStream
from bus.work import Delivery, WorkQueue
from schemas import events as ev
from schemas import saga
from schemas.commands import (
    SiteCancelOperation,
    SiteCommand,
    SiteDeployInstance,
    SiteForgetImage,
    SiteRunImage,
    SiteSaveInstance,
    SiteTransferImage,
)
from schemas.envelope import Envelope, decode, unwrap
from schemas.events import Event
from schemas.names import location_token
from schemas.operations import Step
from schemas.problems import Problem, not_found
from schemas.registry import MESSAGES
from schemas.subjects import CommandSubject, events_of, outbox, parse_command
from schemas.values import (
    ImageContent,
    ImageInstance,
    ImagePart,
    InstanceConfiguration,
    Template,
)

Script = Callable[["Handled"], Awaitable[None]]
STEP = Step(id="work", action="work", part="all")


async def make_outbox(bus: Bus, site: str) -> None:
    """The outbox of a site on the hub's own server, sourced into ``EVENTS``."""
    js = JetStream(bus)
    name = outbox(site)
    settings = {"storage": "file", "retention": "limits", "num_replicas": 1, "allow_direct": True, "allow_atomic": True}
    await js.call(f"STREAM.CREATE.{name}", {"name": name, "subjects": [events_of(site)], **settings})
    info = await js.call("STREAM.INFO.EVENTS")
    sources = [*(info["config"].get("sources") or []), {"name": name, "filter_subject": events_of(site)}]
    await js.call("STREAM.UPDATE.EVENTS", {**info["config"], "sources": sources})


class Handled:
    """A command at the site, and what can be done about it."""

    def __init__(self, site: FakeSite, subject: CommandSubject, envelope: Envelope, command: SiteCommand) -> None:
        self.site = site
        self.subject = subject
        self.envelope = envelope
        self.command = command

    @property
    def id(self) -> str:
        return self.envelope.id

    async def reject(self, problem: Problem) -> None:
        event = ev.CommandRejected(problem=problem, kind=self.envelope.type)
        await self.write(("command", self.id, event))

    async def accept(self, *before: tuple[str, str, Event]) -> None:
        """Accept as an operation of one step."""
        accepted = ev.OperationAccepted(
            kind=self.subject.verb,
            target=self.subject.id,
            name=getattr(self.command, "name", ""),
            by=self.command.by,
            steps=(STEP,),
            parent=self.command.parent,
        )
        await self.write(*before, *(("operation", self.id, event) for event in saga.accept(accepted)))

    async def succeed(self, *before: tuple[str, str, Event]) -> None:
        done = (ev.StepSucceeded(step="work", attempt=1), ev.OperationSucceeded())
        await self.write(*before, *(("operation", self.id, event) for event in done))

    async def fail(self, problem: Problem, *before: tuple[str, str, Event]) -> None:
        done = (
            ev.StepFailed(step="work", attempt=1, problem=problem, final=True),
            ev.OperationFailed(problem=problem),
        )
        await self.write(*before, *(("operation", self.id, event) for event in done))

    async def write(self, *events: tuple[str, str, Event]) -> None:
        await self.site.write(*events, causation=self.id, operation=self.id, replyto=self.envelope.replyto)


class FakeSite:
    """Handles the commands of one site with the script that is set for the verb; unknown verbs wait for ever."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.name = name
        self.bus = bus
        self.store = EventStore(bus, writer=name)
        self.scripts: dict[str, Script] = {
            "deploy": deploys,
            "save": saves,
            "run": runs,
            "transfer": transfers,
            "forget": forgets,
            "delete": deletes,
            "cancel": cancels,
        }
        self.came: list[Handled] = []
        self.handled: set[str] = set()
        self.beating = True
        self.templates: dict[str, Template] = {}
        self._queue = WorkQueue(bus, stream="CMD", consumer=name)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._queue.run(self._handle, concurrency=4))

    async def stop(self) -> None:
        if self._task is not None:
            await self._queue.stop()
            await end([self._task])
            self._task = None

    async def _handle(self, delivery: Delivery) -> None:
        subject, envelope = parse_command(delivery.subject), decode(delivery.payload)
        kind: Any = MESSAGES[envelope.type]
        handled = Handled(self, subject, envelope, unwrap(envelope, kind))
        self.came.append(handled)
        if envelope.id not in self.handled:
            self.handled.add(envelope.id)
            await self.scripts[subject.verb](handled)

    def verbs(self) -> list[str]:
        return [each.subject.verb for each in self.came]

    async def write(
        self,
        *events: tuple[str, str, Event],
        causation: str | None = None,
        operation: str | None = None,
        replyto: str | None = None,
    ) -> None:
        while True:
            expected: dict[tuple[str, str], int] = {}
            for aggregate, id, _ in events:
                if (aggregate, id) not in expected:
                    recorded = await self.store.load(aggregate, id)
                    expected[aggregate, id] = recorded[-1].sequence if recorded else 0
            new = [
                NewEvent(aggregate, id, event, operation=operation, causation=causation, replyto=replyto)
                for aggregate, id, event in events
            ]
            try:
                await self.store.append(new, expected=expected)
            except Conflict:
                continue
            return


# --- scripts


async def deploys(handled: Handled) -> None:
    """Deploy at once."""
    command = handled.command
    assert isinstance(command, SiteDeployInstance)
    await handled.accept(("instance", handled.subject.id, begun(command.name, command.template, handled)))
    await handled.succeed(*running(handled.subject.id, command.template))


async def runs(handled: Handled) -> None:
    """Run an image at once."""
    command = handled.command
    assert isinstance(command, SiteRunImage)
    template = command.content.instances[0].configuration.template
    event = begun(command.name, template, handled, image=command.content.image)
    await handled.accept(("instance", handled.subject.id, event))
    await handled.succeed(*running(handled.subject.id, template))


async def saves(handled: Handled) -> None:
    """Save at once, one part per data service."""
    command = handled.command
    assert isinstance(command, SiteSaveInstance)
    saving = ev.ImageSaving(instance=handled.subject.id, instance_name="shop", template="shop@1", copies=command.copies)
    await handled.accept(("image", command.image, saving))
    template = handled.site.templates[handled.subject.id]
    content = content_of(command.image, handled.site.name, handled.subject.id, template, command.copies)
    locations = [location(handled.site.name, copy=copy, image=command.image) for copy in command.copies.values()]
    await handled.succeed(*locations, ("image", command.image, ev.ImageSaved(content=content)))


async def transfers(handled: Handled) -> None:
    """Have all copies at once."""
    command = handled.command
    assert isinstance(command, SiteTransferImage)
    await handled.accept()
    copies = [part.copy for each in command.content.instances for part in each.parts]
    await handled.succeed(*(location(handled.site.name, copy=copy, image=command.content.image) for copy in copies))


async def forgets(handled: Handled) -> None:
    """Forget all copies at once."""
    command = handled.command
    assert isinstance(command, SiteForgetImage)
    await handled.accept()
    removed = []
    for each in command.content.instances:
        for part in each.parts:
            place = f"{handled.site.name}/main"
            event = ev.LocationRemoved(copy=part.copy, repository=place)
            removed.append(("location", location_token(part.copy, place), event))
    await handled.succeed(*removed)


async def deletes(handled: Handled) -> None:
    """Delete an instance at once."""
    await handled.accept(("instance", handled.subject.id, ev.InstanceDeleting()))
    await handled.succeed(("instance", handled.subject.id, ev.InstanceDeleted()))


async def cancels(handled: Handled) -> None:
    """Cancel what is under way."""
    assert isinstance(handled.command, SiteCancelOperation)
    target = handled.subject.id
    if not await handled.site.store.load("operation", target):
        await handled.reject(not_found("operation", f"no operation {target}"))
        return
    done = (
        ev.CancelRequested(by=handled.command.by),
        ev.UndoStarted(cancelled=True),
        ev.OperationCancelled(),
    )
    await handled.write(*(("operation", target, event) for event in done))


async def accepts_only(handled: Handled) -> None:
    """Begin, and never end."""
    await handled.accept()


async def ignores(handled: Handled) -> None:
    """As if it had not come yet."""


# --- events


def begun(name: str, template: Template, handled: Handled, *, image: str | None = None) -> ev.InstanceDeploying:
    handled.site.templates[handled.subject.id] = template
    return ev.InstanceDeploying(name=name, template=template, by=handled.command.by, image=image)


def running(instance: str, template: Template) -> list[tuple[str, str, Event]]:
    events: list[tuple[str, str, Event]] = [
        ("instance", instance, ev.ServiceDeployed(service=name, broker="process", url="http://127.0.0.1:1"))
        for name in template.services
    ]
    return [*events, ("instance", instance, ev.InstanceRunning(url="http://127.0.0.1:1"))]


def location(site: str, *, copy: str, image: str) -> tuple[str, str, Event]:
    place = f"{site}/main"
    return "location", location_token(copy, place), ev.LocationAdded(copy=copy, repository=place, image=image)


def content_of(image: str, site: str, instance: str, template: Template, copies: dict[str, str]) -> ImageContent:
    parts = tuple(
        ImagePart(
            data_service=name,
            type=template.data_services[name].type,
            broker="postgres",
            plan="small",
            copy=copy,
            copy_format="test",
            level="application",
            size=100,
            stored=50,
        )
        for name, copy in copies.items()
    )
    configuration = InstanceConfiguration(template=template)
    return ImageContent(
        image=image,
        site=site,
        level="application",
        instances=(ImageInstance(instance=instance, instance_name="shop", configuration=configuration, parts=parts),),
    )
