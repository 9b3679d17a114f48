"""Judges the history after a fault: from ``EVENTS``, from the outboxes of the writers, and from what really is.

It watches nothing while faults happen. Clean-up may still be under way when a test asks, so it asks again for a
while before it complains.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from bus.events import Recorded
from hub.client.client import Client
from schemas.problems import CalqueError
from schemas.queries import OperationView
from schemas.subjects import HUB, outbox
from tests.faults.fold import Fold, Operation
from tests.faults.outbox import read_outbox, site_bus
from tests.faults.reality import Reality, look

SETTLE_SECONDS = 60.0
READ_SECONDS = 60.0
QUESTIONS_AT_ONCE = 8
TARGET_OPERATIONS = 200
SETTLED = frozenset({"running", "degraded", "stopped", "deleted", "failed"})


@dataclass(frozen=True, kw_only=True)
class Checker:
    """The judge of one stack. ``clean`` is what each site holds without any application."""

    home: Path
    sites: tuple[str, ...]
    client: Client
    clean: dict[str, Reality]

    async def judge(self, *, seconds: float = SETTLE_SECONDS) -> Fold:
        """Fails the test with every complaint there is after ``seconds``; else the fold of all events."""
        deadline = time.monotonic() + seconds
        while True:
            fold, complaints = await self._look()
            if not complaints:
                return fold
            assert time.monotonic() < deadline, "\n".join(["the history does not hold:", *complaints])
            await asyncio.sleep(0.2)

    async def complaints_at(self, site: str, events: Sequence[Recorded]) -> list[str]:
        """What is wrong at one site by the record and by what is there, while other sites are busy."""
        fold = Fold.of(events)
        complaints = complaints_about(fold.of_site(site))
        try:
            found = await look(self.home, site)
        except (psycopg.Error, BotoCoreError, ClientError) as error:
            return [*complaints, f"{site} can't be looked at: {error}"]
        return [*complaints, *_remains(site, found, expected(fold, site, self.clean[site]))]

    async def _look(self) -> tuple[Fold, list[str]]:
        events = await self._events()
        fold = Fold.of(events)
        complaints = complaints_about(fold)
        if complaints:
            return fold, complaints
        complaints += await self._writers(events)
        complaints += await self._projections(fold)
        for site in self.sites:
            try:
                found = await look(self.home, site)
            except (psycopg.Error, BotoCoreError, ClientError) as error:
                complaints.append(f"{site} can't be looked at: {error}")
                continue
            complaints += _remains(site, found, expected(fold, site, self.clean[site]))
        return fold, complaints

    async def _events(self) -> list[Recorded]:
        async with asyncio.timeout(READ_SECONDS):
            return [recorded async for recorded in self.client.events(after=0)]

    async def _writers(self, events: Sequence[Recorded]) -> list[str]:
        """Each writer's own stream against ``EVENTS``: the same ids in the same order, each once."""
        complaints = []
        for writer in (HUB, *self.sites):
            async with site_bus(self.home, writer) as bus:
                own = [recorded.envelope.id for recorded in await read_outbox(bus, writer)]
            seen = [recorded.envelope.id for recorded in events if recorded.writer == writer]
            if len(set(own)) != len(own):
                complaints.append(f"{outbox(writer)} holds an event twice")
            if own[: len(seen)] != seen:
                complaints.append(f"EVENTS tells {len(seen)} events of {writer}, {outbox(writer)} {len(own)} others")
            elif len(own) > len(seen):
                missing = await self._events()
                if [each.envelope.id for each in missing if each.writer == writer][: len(own)] != own:
                    complaints.append(f"EVENTS lacks {len(own) - len(seen)} events of {writer}")
        return complaints

    async def _projections(self, fold: Fold) -> list[str]:
        """What the hub answers against the fold."""
        try:
            told = await self._told(fold)
        except CalqueError as error:
            return [f"the hub can't be asked: {error}"]
        wanted = _views(fold)
        return [
            f"the hub shows {kind} {id} as {told[kind].get(id)}, by the record it is {wanted[kind].get(id)}"
            for kind in wanted
            for id in sorted(wanted[kind].keys() | told[kind].keys())
            if wanted[kind].get(id) != told[kind].get(id)
        ]

    async def _operations(self, fold: Fold) -> list[OperationView]:
        """All that the hub shows of the targets in the record, one by one: an answer has to fit into a message."""
        slots = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def about(target: str) -> tuple[OperationView, ...]:
            async with slots:
                return await self.client.operations(target=target, limit=TARGET_OPERATIONS)

        targets = sorted({one.accepted.target for one in fold.operations.values()})
        return [view for views in await asyncio.gather(*map(about, targets)) for view in views]

    async def _told(self, fold: Fold) -> dict[str, dict[str, Any]]:
        apps = await self.client.apps(all=True)
        images = await self.client.images(all=True)
        operations = await self._operations(fold)
        return {
            "app": {
                f"{app.site}/{app.id}": (
                    app.name,
                    app.state,
                    app.image,
                    app.url,
                    {data.name: data.resource for data in app.data_services if data.resource},
                    {data.name: data.binding for data in app.data_services if data.binding},
                )
                for app in apps
            },
            "image": {
                image.id: (
                    image.name,
                    image.site,
                    image.state,
                    {part.copy: (part.state, sorted(part.locations)) for part in image.parts},
                )
                for image in images
            },
            "operation": {
                f"{view.site}/{view.id}": (
                    view.kind,
                    view.state,
                    view.cleanup,
                    {step.step.id: step.state for step in view.steps},
                )
                for view in operations
            },
        }


def complaints_about(fold: Fold) -> list[str]:
    """What is wrong by the record alone."""
    return [*fold.complaints, *_operations(fold), *_contradictions(fold), *_images(fold), *_instances(fold)]


def expected(fold: Fold, site: str, clean: Reality) -> Reality:
    """What should be at a site by the record, and nothing else."""
    living = {id: one for (where, id), one in fold.instances.items() if where == site and not one.gone}
    resources = [resource for one in living.values() for resource in one.resources.values()]
    bindings = [binding for one in living.values() for binding in one.bindings.values()]
    databases = {each["database"] for each in resources if "database" in each}
    buckets = {each["bucket"] for each in resources if "bucket" in each}
    copies = {copy for (where, _), (copy, _) in fold.locations.items() if where == site}
    images = {
        id
        for (_, id), image in fold.images.items()
        if image.content is not None
        and fold.entries[id].state == "entered"
        and all(site in fold.held(copy) for copy in image.copies.values())
    }
    return Reality(
        databases=clean.databases | databases,
        roles=clean.roles | databases | {each["user"] for each in bindings if "user" in each},
        moments=clean.moments,
        buckets=clean.buckets | buckets,
        identities=clean.identities | {f"bucket {each['bucket']}" for each in bindings if "bucket" in each},
        processes=clean.processes | {f"{id}/{service}" for id, one in living.items() for service in one.services},
        copies=clean.copies | copies,
        images=clean.images | images,
        staging=clean.staging,
        chunks=1 if copies else 0,
    )


def _remains(site: str, found: Reality, wanted: Reality) -> Iterator[str]:
    # An identity is named after its bucket and its binding; one per bucket is all that a template here asks for.
    named = {f"bucket {user.rpartition('-')[0]}" if user.startswith("calque-") else user for user in found.identities}
    if len(named) != len(found.identities):
        yield f"{site}: more than one identity of a bucket: {sorted(found.identities)}"
    found = _replaced(found, frozenset(named))
    for kind, names in found.beyond(wanted).items():
        yield f"{site}: {kind} of no living owner: {', '.join(names)}"
    for kind, names in wanted.beyond(found).items():
        yield f"{site}: {kind} that should be there: {', '.join(names)}"
    if found.chunks and not wanted.chunks:
        yield f"{site}: {found.chunks} chunks of no copy"


def _replaced(found: Reality, identities: frozenset[str]) -> Reality:
    return Reality(**{**found.__dict__, "identities": identities})


def _operations(fold: Fold) -> Iterator[str]:
    for (writer, id), one in fold.operations.items():
        name = f"{one.accepted.kind} {id} of {writer}"
        if len(one.ends) != 1:
            yield f"{name} ended {len(one.ends)} times: {_steps(one)}"
        elif one.cleanup not in ("none", "done"):
            yield f"{name} {one.state}, its clean-up is {one.cleanup}: {_steps(one)}"


def _contradictions(fold: Fold) -> Iterator[str]:
    """An operation that has ended against its steps and the image that it made."""
    for (writer, id), one in fold.operations.items():
        name = f"{one.accepted.kind} {id} of {writer}"
        if one.state == "succeeded" and set(one.steps.values()) - {"done"}:
            yield f"{name} succeeded: {_steps(one)}"
        if one.state in ("failed", "cancelled") and one.cleanup in ("none", "done"):
            left = [step.id for step in one.accepted.steps if step.undo and one.steps[step.id] not in _TAKEN_BACK]
            if left:
                yield f"{name} {one.state}, its clean-up is {one.cleanup}, and {', '.join(left)} was not taken back"
        if writer != HUB and one.accepted.kind == "save" and one.ends and "image" in one.accepted.request:
            image = fold.images.get((writer, one.accepted.request.get("image", "")))
            if image is None or (image.content is not None) != (one.state == "succeeded"):
                yield f"{name} {one.state}, its image {'is' if image and image.content else 'is not'} saved"


_TAKEN_BACK = ("pending", "undone")


def _steps(operation: Operation) -> str:
    return ", ".join(f"{step} {state}" for step, state in operation.steps.items() if state != "pending")


def _images(fold: Fold) -> Iterator[str]:
    for (site, id), image in fold.images.items():
        entry = fold.entries.get(id)
        if entry is None:
            yield f"image {id} of {site} is in no catalog"
            continue
        if (image.content is not None) == image.failed:
            yield f"image {id} of {site} is both saved and failed, or neither"
        if image.failed and entry.state != "withdrawn":
            yield f"image {id} failed and its entry is {entry.state}"
        for name, copy in image.copies.items():
            states = fold.copies[site, copy]
            if image.failed and (states.state != "failed" or fold.held(copy)):
                yield f"image {id} failed; its part {name} is {states.state} and lies at {fold.held(copy)}"
            if image.content is not None and entry.state == "entered" and site not in fold.held(copy):
                yield f"image {id} is saved and its part {name} lies nowhere at {site}"
            if states.history.count("committed") > 1 or states.history[-2:] == ["failed", "committed"]:
                yield f"copy {copy} of {site}: {states.history}"


def _instances(fold: Fold) -> Iterator[str]:
    for (site, id), one in fold.instances.items():
        if one.state not in SETTLED:
            yield f"instance {one.name} ({id}) of {site} is {one.state} and nothing works on it"
        if one.gone and (one.resources or one.bindings or one.services):
            yield f"instance {one.name} ({id}) of {site} is gone and has {one.resources} {one.services}"


def _views(fold: Fold) -> dict[str, dict[str, Any]]:
    return {
        "app": {
            f"{site}/{id}": (
                one.name,
                one.state,
                one.image,
                one.url,
                one.resources,
                one.bindings,
            )
            for (site, id), one in fold.instances.items()
        },
        "image": {id: _image_view(fold, id) for id in fold.entries},
        "operation": {
            f"{writer}/{id}": (one.accepted.kind, one.state, one.cleanup, one.steps)
            for (writer, id), one in fold.operations.items()
        },
    }


def _image_view(fold: Fold, id: str) -> tuple[Any, ...]:
    entry = fold.entries[id]
    image = fold.images.get((entry.site, id))
    copies = image.copies.values() if image else ()
    if entry.state == "deleted":
        state = "deleted"
    elif entry.state == "withdrawn" or (image and image.failed):
        state = "failed"
    else:
        state = "saved" if image and image.content is not None else "saving"
    parts = {copy: (fold.copies[entry.site, copy].state, sorted(fold.held(copy).values())) for copy in copies}
    return entry.name, entry.site, state, parts
