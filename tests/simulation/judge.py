"""Judges a run afterwards, from the streams and from what really is at the brokers; it watches nothing meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta

from bus.records import Recorded
from schemas import commands as cmd
from schemas import events as ev
from schemas.envelope import parse_timestamp
from schemas.expiry import SKEW
from schemas.operations import effect_id
from schemas.subjects import HUB, parse_command
from site_agent.domain import plans
from tests.faults.fold import Fold, Instance, Operation
from tests.simulation.data_broker import EXISTING
from tests.simulation.judge_hooks import hooks_called
from tests.simulation.judge_replay import journal, projections, strange, streams
from tests.simulation.platform import Hold
from tests.simulation.workload import Client
from tests.simulation.world import FORGED, SITES, World

GIVEN = "site"
"""Under what an agent keeps the secrets that people gave to its site."""
DECIDED_WITHIN = timedelta(minutes=3)
SETTLED = frozenset({"running", "degraded", "stopped", "deleted", "failed"})


class Record(Fold):
    """The fold of all events, which knows that a cancellation may come before what it cancels."""

    def _operation(self, key: tuple[str, str], event: ev.Event) -> None:
        if key in self.operations or isinstance(event, ev.OperationAccepted):
            super()._operation(key, event)
        elif not isinstance(event, ev.CancelRequested):
            self.complaints.append(f"operation {key} has a {type(event).__name__} and was never accepted")


def judge(world: World, client: Client) -> list[str]:
    """Every complaint; none for a run that went as it should."""
    everything = world.events.decoded()
    events = [each for each in everything if not each.envelope.id.startswith(FORGED)]
    fold = Record.of(events)
    complaints = [
        *world.loop.failures,
        *(f"dead letter: {each}" for each in world.dead_letters),
        *fold.complaints,
    ]
    for check in (_operations, _contradictions, _instances, _images):
        complaints += check(fold)
    complaints += _steps_and_parts(events)
    complaints += _commands(events, client)
    complaints += _expired(events, client)
    complaints += _answers(client)
    complaints += _found(fold, client)
    complaints += streams(world, events)
    complaints += projections(world, everything)
    complaints += strange(events, everything)
    complaints += [f"{each} is no command and no dead letter" for each in sorted(world.babble - world.put_aside)]
    for site in SITES:
        complaints += journal(world, site)
        complaints += _reality(world, fold, site)
        complaints += _writers(world, fold, site)
        complaints += hooks_called(world, fold, site)
    return complaints


def _operations(fold: Fold) -> Iterator[str]:
    for (writer, id), one in fold.operations.items():
        name = f"{one.accepted.kind} {id} of {writer}"
        if len(one.ends) != 1:
            yield f"{name} ended {len(one.ends)} times"
        elif one.cleanup not in ("none", "done"):
            yield f"{name} {one.state}, its clean-up is {one.cleanup}"


def _contradictions(fold: Fold) -> Iterator[str]:
    """An operation against its steps, its image, its children."""
    for (writer, id), one in fold.operations.items():
        name = f"{one.accepted.kind} {id} of {writer}"
        states = set(one.steps.values())
        if one.state == "succeeded" and states - {"done"}:
            yield f"{name} succeeded with steps {one.steps}"
        if one.state in ("failed", "cancelled"):
            left = [
                step.id for step in one.accepted.steps if step.undo and one.steps[step.id] not in ("pending", "undone")
            ]
            if left:
                yield f"{name} {one.state} and left {left}"
        if writer == HUB and one.accepted.kind == "run":
            yield from _children(fold, id, one)
        if writer != HUB and one.accepted.kind == "save":
            image = fold.images.get((writer, one.accepted.request["image"]))
            if image is None or (image.content is not None) != (one.state == "succeeded"):
                yield f"{name} {one.state}, its image {'is' if image and image.content else 'is not'} saved"
            elif image.failed == (one.state == "succeeded"):
                yield f"{name} {one.state}, its image failed: {image.failed}"


def _children(fold: Fold, id: str, one: Operation) -> Iterator[str]:
    site = one.accepted.request["site"]
    child = fold.operations.get((site, effect_id(id, f"run-{site}", 1)))
    instance = fold.instances.get((site, one.accepted.target))
    if one.state == "succeeded" and (child is None or child.state != "succeeded"):
        yield f"run {id} of the hub succeeded, its child is {child and child.state}"
    mine = child is not None and child.state == "succeeded"
    if one.state != "succeeded" and mine and instance is not None and not instance.gone:
        yield f"run {id} of the hub {one.state}, its instance {one.accepted.target} is {instance.state}"


def _instances(fold: Fold) -> Iterator[str]:
    names: dict[tuple[str, str], str] = {}
    for (site, id), one in fold.instances.items():
        if one.state not in SETTLED:
            yield f"instance {id} of {site} is {one.state} at the end"
        if one.gone:
            continue
        if (site, one.name) in names:
            yield f"{site} has two apps {one.name}: {id} and {names[site, one.name]}"
        names[site, one.name] = id


def _images(fold: Fold) -> Iterator[str]:
    for id, entry in fold.entries.items():
        image = fold.images.get((entry.site, id))
        saved = image is not None and image.content is not None
        if entry.state == "entered" and not saved:
            yield f"image {id} is in the catalog and was not saved"
        if entry.state == "withdrawn" and saved:
            yield f"image {id} was withdrawn and is saved at {entry.site}"
        if entry.state == "deleted" and image is not None:
            for copy in image.copies.values():
                if held := fold.held(copy):
                    yield f"image {id} is deleted, its copy {copy} lies at {sorted(held)}"
    for site, id in fold.images:
        if id not in fold.entries:
            yield f"image {id} of {site} is in no catalog"
    taken: dict[str, str] = {}
    for id, entry in fold.entries.items():
        if entry.state == "entered":
            if entry.name in taken:
                yield f"images {id} and {taken[entry.name]} are both called {entry.name}"
            taken[entry.name] = id


def _steps_and_parts(events: list[Recorded]) -> Iterator[str]:
    """At each batch's end, an operation that has ended and its instance say the same."""
    fold = Record()
    kinds: dict[tuple[str, str], ev.OperationAccepted] = {}
    ended: list[tuple[tuple[str, str], ev.OperationAccepted, str]] = []
    for index, recorded in enumerate(events):
        fold._apply(recorded)
        key, event = (recorded.writer, recorded.id), recorded.event
        if isinstance(event, ev.OperationAccepted):
            kinds[key] = event
        if recorded.aggregate == "operation" and type(event) in _ENDS and key in kinds and recorded.writer != HUB:
            ended.append((key, kinds[key], _ENDS[type(event)]))
        following = events[index + 1] if index + 1 < len(events) else None
        if (
            following is not None
            and following.envelope.time == recorded.envelope.time
            and (following.writer == recorded.writer)
        ):
            continue  # a batch carries one time
        for (writer, id), accepted, outcome in ended:
            instance = fold.instances.get((writer, accepted.target))
            state = instance.state if instance else None
            wanted = _STATES.get((accepted.kind, outcome))
            if wanted is not None and state not in wanted:
                yield f"{accepted.kind} {id} of {writer} {outcome} while instance {accepted.target} is {state}"
        ended.clear()


_ENDS: dict[type, str] = {
    ev.OperationSucceeded: "succeeded",
    ev.OperationFailed: "failed",
    ev.OperationCancelled: "cancelled",
}
_STATES: dict[tuple[str, str], frozenset[str]] = {
    ("deploy", "succeeded"): frozenset({"running"}),
    ("run", "succeeded"): frozenset({"running"}),
    ("start", "succeeded"): frozenset({"running"}),
    ("stop", "succeeded"): frozenset({"stopped"}),
    ("delete", "succeeded"): frozenset({"deleted"}),
    ("deploy", "failed"): frozenset({"failed"}),
    ("deploy", "cancelled"): frozenset({"failed"}),
    ("run", "failed"): frozenset({"failed"}),
    ("run", "cancelled"): frozenset({"failed"}),
    ("delete", "failed"): frozenset({"failed"}),
    ("delete", "cancelled"): frozenset({"failed"}),
    ("stop", "failed"): frozenset({"degraded"}),
    ("start", "failed"): frozenset({"stopped", "degraded"}),
    ("stop", "cancelled"): frozenset({"degraded"}),
    ("start", "cancelled"): frozenset({"stopped", "degraded"}),
    ("save", "cancelled"): frozenset({"running", "degraded", "stopped"}),
    ("save", "succeeded"): frozenset({"running", "degraded", "stopped"}),
    ("save", "failed"): frozenset({"running", "degraded", "stopped"}),
}


def _commands(events: list[Recorded], client: Client) -> Iterator[str]:
    """Every command had exactly one outcome. A cancellation of what is being cancelled already is accepted, and no
    more."""
    outcomes: dict[str, list[str]] = defaultdict(list)
    accepted: dict[str, list[str]] = defaultdict(list)
    cancelling: set[str] = set()
    for recorded in events:
        event, causation = recorded.event, recorded.envelope.causationid
        match event:
            case ev.CommandAccepted(kind=cmd.CancelOperation.TYPE | cmd.SiteCancelOperation.TYPE):
                accepted[recorded.id].append(f"accepted by {recorded.writer}")
            case ev.CommandRejected():
                outcomes[recorded.id].append(f"rejected by {recorded.writer}: {event.problem.sentence()}")
            case ev.OperationAccepted():
                outcomes[recorded.id].append(f"accepted by {recorded.writer}")
            case ev.CancelRequested() | ev.TemplateApplied() | ev.CatalogEdited():
                outcomes[causation or ""].append(f"done by {recorded.writer}")
                cancelling.add(recorded.id)
    for id, sent in client.sent.items():
        found = outcomes.get(id, [])
        if not found and parse_command(sent.subject).id in cancelling:
            found = accepted[id]
        if len(found) > 1 or (not found and not isinstance(sent.command, cmd.ApplyTemplate)):
            yield f"command {id} ({sent.subject}) had {len(found)} outcomes: {'; '.join(found)}"
    for id, found in outcomes.items():
        if len(found) > 1 and id not in client.sent:
            yield f"effect {id} had {len(found)} outcomes: {'; '.join(found)}"


def _expired(events: list[Recorded], client: Client) -> Iterator[str]:
    """What had expired by the clock of who decided it is not carried out. Between a decision and its event may lie a
    stall, and as many repeats of the append as its deadline allows."""
    for recorded in events:
        sent = client.sent.get(recorded.id)
        if not isinstance(recorded.event, ev.OperationAccepted) or sent is None or sent.envelope.expirytime is None:
            continue
        end = parse_timestamp(sent.envelope.expirytime) + SKEW
        taken = parse_timestamp(recorded.envelope.time)
        if taken > end + DECIDED_WITHIN:
            yield f"command {recorded.id}, good until {end} at most, was accepted by {recorded.writer} at {taken}"


def _answers(client: Client) -> Iterator[str]:
    """The same command, the same answer."""
    for id, answers in client.answers.items():
        said = {(each.state, each.operation) for each in answers}
        if len(said) > 1:
            yield f"command {id} was answered {sorted(map(str, said))}"


def _found(fold: Fold, client: Client) -> Iterator[str]:
    """An image that is listed as found can be run."""
    for id, (site, image) in client.found_runs.items():
        operation = fold.operations.get((site, id))
        if operation is None or operation.state != "succeeded":
            why = fold.rejected.get((site, id)) or fold.rejected.get((HUB, id))
            yield f"image {image} was found at {site}, and running it there {operation and operation.state}: {why}"


def _reality(world: World, fold: Fold, site: str) -> Iterator[str]:
    """No orphan, and nothing missing: what the brokers hold against the record."""
    disks = world.disks[site]
    living = {id: one for (where, id), one in fold.instances.items() if where == site and not one.gone}
    copies, manifests = _stored(world, fold, site)
    services = {each["database"] for one in living.values() for each in one.resources.values()}
    attributes = [pair for one in living.values() for each in one.bindings.values() for pair in each.items()]
    bindings = {user for name, user in attributes if name.rpartition(".")[2] == "user"}
    found = {id: one for disk in disks.data.values() for id, one in disk.services.items()}
    wanted = {
        "database": services,
        "binding": bindings,
        "process": {f"{id}/{service}" for id, one in living.items() for service in one.services},
        "copy": {f"{name}/{copy}" for name, copy in copies},
        "staged copy": set(),
        "copied ahead": set(),
        "image manifest": manifests,
        "staged data": set(),
        "moment": set(),
    }
    real: dict[str, set[str]] = {
        "database": set(found),
        "binding": {binding for one in found.values() for binding in one.bindings},
        "process": {f"{id}/{name}" for (id, name), app in disks.platform.apps.items() if app.state == "running"},
        "copy": _lying(world, site, "committed"),
        "staged copy": {f"{name}/{copy}" for name, disk in disks.repositories.items() for copy in disk.staging},
        "copied ahead": {f"{name}/{copy}" for name, disk in disks.repositories.items() for copy in disk.ahead},
        "image manifest": _lying(world, site, "images"),
        "staged data": {copy for disk in disks.data.values() for copy in disk.staged},
        "moment": {copy for name in disks.data for copy in vars(world.brokers[f"{site}/dsb/{name}"])["moments"]},
    }
    taken = {
        f"{name}/{id}"
        for name, disk in disks.repositories.items()
        for id, image in disk.images.items()
        if disk.taken.intersection(part.copy for one in image.instances for part in one.parts)
    }
    for kind, names in wanted.items():
        if orphans := real[kind] - names:
            yield f"{site}: {kind} of no living owner: {sorted(orphans)}"
        if missing := {name for name in names - real[kind] if not _given_up(name, living) and name not in taken}:
            yield f"{site}: {kind} that should be there: {sorted(missing)}"
    for key in disks.platform.apps:
        if key[0] not in living:
            yield f"{site}: app service {key} of no living owner"
    for service, one in found.items():
        if not one.complete:
            yield f"{site}: database {service} is half made"
    for reference in world.agents[site].secrets:
        owner = reference.removeprefix("secret:").split("/")[0]
        if owner != GIVEN and owner not in living:
            yield f"{site}: secret {reference} of no living owner"
    for name, kept in disks.data.items():
        if kept.existing != dict.fromkeys(EXISTING, "theirs"):
            yield f"{site}: what was there before at {name} is {kept.existing}"
    for disk in disks.repositories.values():
        if any(image.image != id for id, image in disk.images.items()):
            yield f"{site}: an image's manifest lies under another name"


def _stored(world: World, fold: Fold, site: str) -> tuple[set[tuple[str, str]], set[str]]:
    """What the record says lies in the repositories of a site: copies by repository, manifests of images.

    A manifest stands wherever a copy of its image lies; that of an image without copies, and of one whose copies
    were taken away, where it stands.
    """
    copies = {(place.partition("/")[2], copy) for (where, _), (copy, place) in fold.locations.items() if where == site}
    manifests: set[str] = set()
    for (_, id), image in fold.images.items():
        if image.content is None or fold.entries[id].state != "entered":
            continue
        for name, disk in world.disks[site].repositories.items():
            held = any((name, copy) in copies for copy in image.copies.values())
            may = not image.copies or disk.taken.intersection(image.copies.values())
            if held or (may and id in disk.images):
                manifests.add(f"{name}/{id}")
    return copies, manifests


def _lying(world: World, site: str, what: str) -> set[str]:
    """What lies in the repositories, but for what strangers left and nobody trusted, and for manifests of images that
    were deleted after their copies had been taken away."""
    journal = world.agents[site].journal
    assert journal is not None
    found: set[str] = set()
    for name, disk in world.disks[site].repositories.items():
        untrusted = disk.untrusted(journal.site.signers)
        apart = {part.copy for image in untrusted for part in disk.images[image].instances[0].parts} | untrusted
        if what == "images":
            apart |= {
                id
                for id, image in disk.images.items()
                if disk.taken.intersection(part.copy for one in image.instances for part in one.parts)
            }
        found |= {f"{name}/{id}" for id in getattr(disk, what) if id not in apart}
    return found


def _given_up(name: str, living: dict[str, Instance]) -> bool:
    """Whether it belongs to an instance that is not well: what is left of it may be less than the record says."""
    return any(
        (one.state == "failed" and name.startswith((f"{id}-", f"{id}/")))
        or (one.state == "degraded" and name.startswith(f"{id}/"))
        for id, one in living.items()
    )


def _writers(world: World, fold: Fold, site: str) -> Iterator[str]:
    """Writers were let go by who held them, and stood still while every moment of a saved image was fixed."""
    disks = world.disks[site]
    by_operation: dict[str, list[Hold]] = defaultdict(list)
    for hold in disks.platform.diary:
        hold.over(world.loop.time())
        by_operation[hold.operation].append(hold)
        if hold.ended is None:
            yield f"{site}: {hold.service} of {hold.instance} is still held by {hold.id}"
        elif hold.ended - hold.since > plans.HOLD_SECONDS + 1e-6:
            yield f"{site}: {hold.service} was held for {hold.ended - hold.since:.1f} s"
        elif not hold.asked and hold.how == "deadline":
            yield f"{site}: nobody ever let {hold.service} of {hold.instance} go (held by {hold.id})"
    fixed = {copy: times for disk in disks.data.values() for copy, times in disk.fixed.items()}
    for copy, times in fixed.items():
        if len(times) > 1:
            yield f"{site}: the moment of copy {copy} was fixed {len(times)} times"
    for (where, id), operation in fold.operations.items():
        if where != site or operation.accepted.kind != "save" or operation.state != "succeeded":
            continue
        moments = [fixed[copy][0] for copy in operation.accepted.request["copies"].values()]
        writers = {step.part for step in operation.accepted.steps if step.action == plans.QUIESCE}
        held = {hold.service: hold for hold in by_operation[id] if hold.unbroken}
        for writer in sorted(writers):
            if writer not in held:
                yield f"save {id} succeeded, its writer {writer} was not held unbroken"
            elif moments and not (held[writer].since <= min(moments) and max(moments) <= (held[writer].ended or 0.0)):
                yield f"save {id} succeeded, a moment was fixed while its writer {writer} was not held"
