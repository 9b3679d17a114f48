"""Running and deleting images: which way a command goes, and the plans of the hub's own operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from schemas.base import Fact
from schemas.commands import RunImage, TransferImage, chosen
from schemas.deadlines import deadline
from schemas.envelope import parse_timestamp
from schemas.events import OperationAccepted
from schemas.operations import Step
from schemas.problems import Problem, conflict, not_found, temporary
from schemas.values import Artifact, ImageContent, ImageState, Requester, SiteState, Value

TRANSFER, RUN, FORGET = "transfer", "run", "forget"
STOP_CHILD = "stop"
RUN_KIND, TRANSFER_KIND, DELETE_KIND = "run", "transfer", "delete-image"
DELETE_DEADLINE_SECONDS = 10 * 365 * 86400.0
FOREVER = 1_000_000


class ImageFacts(NamedTuple):
    """What is known of an image: ``copies`` is copy -> sites that hold it, ``site`` the one that saved or found it;
    ``keep_until`` is when the last lock of its copies ends, and ``locked_at`` the repository (``<site>/<name>``) that
    has it."""

    id: str
    name: str
    state: ImageState
    content: ImageContent | None
    copies: Mapping[str, frozenset[str]]
    used_by: Sequence[str] = ()
    site: str = ""
    keep_until: str = ""
    locked_at: str = ""

    @property
    def home(self) -> str:
        """The site that saved or found it: what was found may come from a site that this hub never heard of."""
        return self.site or (self.content.site if self.content else "")


class TransferRequest(Fact, frozen=True, kw_only=True):
    """The request of a hub operation that brings an image from ``source`` to ``site``."""

    image: str
    site: str
    source: str
    content: ImageContent
    repository: str | None = None
    bytes_per_second: int = 0


class RunRequest(TransferRequest, frozen=True, kw_only=True):
    """The request of a hub operation that runs an image: all that its steps need."""

    instance: str
    name: str
    environment: dict[str, dict[str, Value]] = {}
    plans: dict[str, str] = {}
    expected_plan: str | None = None
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    including: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}


class DeleteRequest(Fact, frozen=True, kw_only=True):
    """The request of a hub operation that deletes an image."""

    image: str
    name: str
    content: ImageContent


class Here(NamedTuple):
    """All copies lie at the site: the site's own saga runs the image."""

    content: ImageContent


class Across(NamedTuple):
    """Copies must be transferred from ``source`` first: a saga of the hub."""

    content: ImageContent
    source: str


def copies_of(content: ImageContent) -> tuple[str, ...]:
    """The copies that an image names."""
    return tuple(part.copy for instance in content.instances for part in instance.parts)


def route_run(
    image: ImageFacts | None, id: str, *, site: str, sites: Mapping[str, SiteState]
) -> Here | Across | Problem:
    """Which way an image gets to run at ``site``, or why it can't."""
    if problem := check_saved(image, id):
        return problem
    assert image is not None
    assert image.content is not None
    if problem := check_site_known(site, sites=sites):
        return problem
    needed = copies_of(image.content)
    if all(site in image.copies.get(copy, ()) for copy in needed):
        return Here(image.content)
    having = sorted(
        (each for each in sites if each != site and all(each in image.copies.get(copy, ()) for copy in needed)),
        key=lambda each: (each != image.home, each),
    )
    if not having:
        return conflict(
            "image", f"no site holds all copies of image {image.name}", "see `calque image describe` for where they lie"
        )
    for holder in having:
        if sites[holder] == "online":
            return Across(image.content, holder)
    return temporary(
        "site_offline",
        f"the copies of image {image.name} lie at {', '.join(having)}, which is {sites[having[0]]}; "
        f"run it again when the site is online",
        retry_after_seconds=30.0,
        field="image",
    )


def check_saved(image: ImageFacts | None, id: str) -> Problem | None:
    """``None`` when the image is saved and not deleted."""
    if image is None:
        return not_found("image", f"there is no image {id}", "see `calque image list`")
    match image.state:
        case "saving":
            return conflict("image", f"image {image.name} is still being saved", "wait until it is saved")
        case "deleted":
            return not_found("image", f"image {image.name} is deleted", "see `calque image list`")
        case "failed":
            return not_found("image", f"image {image.name} was never saved: its save failed", "save it again")
    if image.content is None:
        return conflict("image", f"image {image.name} is still being saved", "wait until it is saved")
    return None


def check_site_known(site: str, *, sites: Mapping[str, SiteState]) -> Problem | None:
    """``None`` for a site that the hub knows."""
    if site in sites and sites[site] != "retired":
        return None
    known = ", ".join(sorted(each for each, state in sites.items() if state != "retired"))
    return not_found("site", f"there is no site {site!r}", f"use one of: {known}" if known else "join a site first")


def check_deletable(image: ImageFacts | None, id: str, *, now: datetime) -> Problem | None:
    """``None`` when the image may be deleted now: all of it, since what begins is not taken back."""
    if problem := check_saved(image, id):
        return problem
    assert image is not None
    if image.used_by:
        return conflict(
            "image",
            f"image {image.name} is used by operation {image.used_by[0]}",
            "wait until it has ended, or cancel it",
        )
    if image.keep_until and parse_timestamp(image.keep_until) > now:
        return Problem(
            code="locked",
            field="image",
            message=f"image {image.name} is locked: repository {image.locked_at} keeps its copies until "
            f"{image.keep_until}",
            remedy="delete it after that time; no setting shortens the lock of a copy that is there",
        )
    return None


def plan_run(command: RunImage, *, image: str, way: Across, by: Requester) -> OperationAccepted:
    """The operation that brings an image to another site and runs it there."""
    site = command.site
    request = RunRequest(
        image=image,
        instance=command.instance,
        name=command.name,
        site=site,
        source=way.source,
        content=way.content,
        **chosen(command),
        expected_plan=command.expected_plan,
        repository=command.repository,
    )
    transfer, run = step_name(TRANSFER, site), step_name(RUN, site)
    seconds = deadline(RUN_KIND, command.deadline_seconds)
    return OperationAccepted(
        kind=RUN_KIND,
        target=command.instance,
        name=command.name,
        by=by,
        steps=(
            _transfer_step(site, seconds),
            Step(
                id=run,
                action=RUN,
                part=site,
                needs=(transfer,),
                undo=STOP_CHILD,
                attempts=1,
                timeout_seconds=seconds,
            ),
        ),
        request=_plain(request),
        deadline_seconds=seconds,
    )


def holders(image: ImageFacts) -> tuple[str, ...]:
    """The sites that have something of a saved image to forget."""
    assert image.content is not None
    copies = (image.copies.get(copy, frozenset()) for copy in copies_of(image.content))
    return tuple(sorted({image.home}.union(*copies)))


def plan_transfer(command: TransferImage, *, image: str, way: Across, by: Requester) -> OperationAccepted:
    """The operation that brings an image to another site."""
    request = TransferRequest(
        image=image,
        site=command.site,
        source=way.source,
        content=way.content,
        repository=command.repository,
        bytes_per_second=command.bytes_per_second,
    )
    seconds = deadline(TRANSFER_KIND, command.deadline_seconds)
    return OperationAccepted(
        kind=TRANSFER_KIND,
        target=image,
        name=", ".join(one.instance_name for one in way.content.instances),
        by=by,
        steps=(_transfer_step(command.site, seconds),),
        request=_plain(request),
        deadline_seconds=seconds,
    )


def _transfer_step(site: str, seconds: float) -> Step:
    """Another transfer of the same image may be under way at the site: then this one has to wait its turn."""
    name = step_name(TRANSFER, site)
    return Step(id=name, action=TRANSFER, part=site, attempts=FOREVER, timeout_seconds=seconds)


def plan_delete(image: ImageFacts, *, by: Requester) -> OperationAccepted:
    """The operation that removes an image's copies from every site that has some; an absent site defers its step."""
    assert image.content is not None
    return OperationAccepted(
        kind=DELETE_KIND,
        target=image.id,
        name=image.name,
        by=by,
        steps=tuple(
            Step(
                id=step_name(FORGET, site),
                action=FORGET,
                part=site,
                attempts=FOREVER,
                timeout_seconds=DELETE_DEADLINE_SECONDS,
            )
            for site in holders(image)
        ),
        request=_plain(DeleteRequest(image=image.id, name=image.name, content=image.content)),
        deadline_seconds=DELETE_DEADLINE_SECONDS,
    )


def step_name(action: Literal["transfer", "run", "forget"] | str, site: str) -> str:
    """The id of the step that does ``action`` at ``site``."""
    return f"{action}-{site}"


def _plain(request: TransferRequest | DeleteRequest) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(request)
    return plain
