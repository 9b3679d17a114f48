"""The catalog entry of an image: its name and tags, until it is withdrawn (never saved) or deleted."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import msgspec

from hub.domain import claim
from hub.domain.claim import ClaimState
from hub.domain.received import check_id
from schemas.base import Fact
from schemas.commands import EditImage, SaveInstance
from schemas.events import (
    CatalogDeleted,
    CatalogEdited,
    CatalogEntered,
    CatalogWithdrawn,
    ClaimReleased,
    ClaimTaken,
    Event,
    ImageFound,
)
from schemas.masking_rules import check_masking
from schemas.names import TAG, check_name
from schemas.problems import Problem, conflict, invalid
from schemas.values import ImageContent, Requester

NOT_IN_NAMES = re.compile("[^a-z0-9]+")


class CatalogState(Fact, frozen=True, kw_only=True):
    """The entry of one image."""

    entered: CatalogEntered
    status: Literal["entered", "withdrawn", "deleted"] = "entered"


def found_name(content: ImageContent, number: int) -> str:
    """What an image that a site came upon is called: by the app and the day it was saved, ``-2`` for the next so
    called."""
    app = next((one.instance_name for one in content.instances), "")
    day = content.saved_at[:10]
    made = NOT_IN_NAMES.sub("-", f"{app} {day}".lower()).strip("-") or "found"
    tail = f"-{number}" if number > 1 else ""
    return made[: 40 - len(tail)].strip("-") + tail


def enter_found(
    state: CatalogState | None, taken: ClaimState, event: ImageFound, *, image: str, site: str, name: str
) -> Change | None:
    """Enter an image that a site came upon under a free ``name``; ``None`` when that is another's."""
    if state is not None:
        return Change([], [])
    if taken.owner is not None:
        return None
    instance = ", ".join(one.instance for one in event.content.instances)
    by = Requester(principal=f"site-{site}")
    entered = CatalogEntered(name=name, site=site, instance=instance, by=by, origin="found")
    return Change([entered], [ClaimTaken(owner=image)])


class Edit(NamedTuple):
    """Events of an entry, of the name that it had and of the one that it gets."""

    catalog: list[Event]
    released: list[Event]
    claimed: list[Event]


class Change(NamedTuple):
    """Events of the two aggregates that change together."""

    catalog: list[Event]
    claim: list[Event]


def evolve(state: CatalogState | None, event: Event) -> CatalogState | None:
    """The state after ``event``."""
    match event:
        case CatalogEntered():
            return CatalogState(entered=event)
        case CatalogEdited() if state is not None:
            changes = {
                field: value for field in ("name", "tags", "comment") if (value := getattr(event, field)) is not None
            }
            return CatalogState(entered=msgspec.structs.replace(state.entered, **changes), status=state.status)
        case CatalogWithdrawn() if state is not None:
            return CatalogState(entered=state.entered, status="withdrawn")
        case CatalogDeleted() if state is not None:
            return CatalogState(entered=state.entered, status="deleted")
    return state


def check_save(command: SaveInstance) -> Problem | None:
    """What is wrong with the fields of a save, if anything."""
    if problem := check_id(command.image, field="image") or check_name(command.name, field="name"):
        return problem
    if command.masking and not command.masked:
        return invalid("masking", "there are rules, and the save is not to be masked", "set 'masked' too")
    for name, rules in command.masking.items():
        for problem in check_masking(rules, field=f"masking.{name}"):
            return problem
    return _check_tags(command.tags)


def check_edit(command: EditImage) -> Problem | None:
    """What is wrong with the fields of a change, if anything."""
    if command.name is None and command.tags is None and command.comment is None:
        return invalid("name", "nothing is to be changed", "give a name, tags or a comment")
    if command.name is not None and (problem := check_name(command.name, field="name")):
        return problem
    return _check_tags(command.tags or ())


def edit(state: CatalogState, taken: ClaimState, command: EditImage, *, image: str, by: Requester) -> Edit | Problem:
    """Change an entry; ``taken`` is the claim of the name that is wanted, also when that is the present one."""
    wanted = command.name
    if wanted is None or wanted == state.entered.name:
        return Edit([CatalogEdited(by=by, tags=command.tags, comment=command.comment)], [], [])
    if taken.owner not in (None, image):
        return conflict("name", f"the name {wanted!r} belongs to image {taken.owner}", "choose another name")
    edited = CatalogEdited(by=by, name=wanted, tags=command.tags, comment=command.comment)
    return Edit([edited], [ClaimReleased(owner=image)], [ClaimTaken(owner=image)])


def _check_tags(tags: tuple[str, ...]) -> Problem | None:
    for index, tag in enumerate(tags):
        if not TAG.fullmatch(tag):
            return invalid(f"tags[{index}]", f"{tag!r} is not a tag", "use up to 64 of letters, digits and . _ : + -")
    return None


def enter(
    state: CatalogState | None, taken: ClaimState, command: SaveInstance, *, site: str, instance: str, by: Requester
) -> Change | Problem:
    """Enter an image that is about to be saved, and claim its name."""
    if state is not None:
        return conflict("image", f"image {command.image} exists already", "make a new id for a new image")
    if taken.owner is not None:
        return conflict(
            "name",
            f"the name {command.name!r} belongs to image {taken.owner}",
            "choose another name, or delete that image",
        )
    entered = CatalogEntered(
        name=command.name, site=site, instance=instance, by=by, tags=command.tags, comment=command.comment
    )
    return Change([entered], [ClaimTaken(owner=command.image)])


def withdraw(state: CatalogState | None, taken: ClaimState, *, image: str, problem: Problem | None) -> Change:
    """The image was never saved: its entry is void and its name free again."""
    if state is None or state.status != "entered":
        return Change([], [])
    return Change([CatalogWithdrawn(problem=problem)], claim.release(taken, image))


def delete(state: CatalogState | None, taken: ClaimState, *, image: str, by: Requester) -> Change:
    """The tombstone of an image."""
    if state is None or state.status != "entered":
        return Change([], [])
    return Change([CatalogDeleted(by=by)], claim.release(taken, image))
