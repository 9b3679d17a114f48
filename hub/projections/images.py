"""Images: the hub's catalog, the content that sites wrote, copies, and where copies lie."""

from __future__ import annotations

import msgspec

from hub.domain import catalog
from hub.domain.catalog import CatalogState
from schemas.events import (
    CatalogDeleted,
    CatalogWithdrawn,
    CopyCommitted,
    CopyCopying,
    CopyExpired,
    CopyFailed,
    CopyPrepared,
    CopyPreparing,
    Event,
    ImageFailed,
    ImageFound,
    ImageSaved,
    ImageSaving,
    LocationAdded,
    LocationLost,
    LocationRemoved,
)
from schemas.problems import Problem
from schemas.values import CopyState, CopySummary, ImageContent, ImageState, Level


class EntryRow(msgspec.Struct, kw_only=True):
    """The hub's entry of an image; ``command`` is the save that made it, ``deletion`` the command that deleted it."""

    state: CatalogState
    command: str | None = None
    deletion: str | None = None
    problem: Problem | None = None
    created_at: str = ""


class ContentRow(msgspec.Struct, kw_only=True):
    """An image as its source site tells of it."""

    saving: ImageSaving | None = None
    content: ImageContent | None = None
    problem: Problem | None = None
    found: ImageFound | None = None


class CopyRow(msgspec.Struct, kw_only=True):
    """One copy as the site where it was made tells of it."""

    state: CopyState = "preparing"
    begun: CopyPreparing | None = None
    level: Level | None = None
    summary: CopySummary | None = None


class Images:
    """Four tables; the keys of those that sites feed begin with the site."""

    def __init__(self) -> None:
        self.entries: dict[str, EntryRow] = {}
        self.contents: dict[tuple[str, str], ContentRow] = {}
        self.copies: dict[tuple[str, str], CopyRow] = {}
        self.locations: dict[tuple[str, str], LocationAdded] = {}
        self.by_command: dict[str, str] = {}

    def apply_catalog(self, id: str, event: Event, *, time: str, causation: str | None) -> None:
        """An event of the hub's catalog."""
        row = self.entries.get(id)
        state = catalog.evolve(row.state if row else None, event)
        if state is None:
            return
        if row is None:
            row = self.entries[id] = EntryRow(state=state, command=causation, created_at=time)
            if causation is not None:
                self.by_command[causation] = id
        row.state = state
        match event:
            case CatalogWithdrawn(problem=problem):
                row.problem = problem
            case CatalogDeleted():
                row.deletion = causation

    def apply_image(self, site: str, id: str, event: Event) -> None:
        """An event of an image's content, from its source site."""
        row = self.contents.setdefault((site, id), ContentRow())
        match event:
            case ImageSaving():
                row.saving = event
            case ImageSaved(content=content):
                row.content = content
            case ImageFound(content=content):
                row.content, row.found = row.content or content, event
            case ImageFailed(problem=problem):
                row.problem = problem

    def apply_copy(self, site: str, id: str, event: Event) -> None:
        """An event of a copy, from the site where it was made."""
        row = self.copies.setdefault((site, id), CopyRow())
        match event:
            case CopyPreparing():
                row.begun = event
            case CopyPrepared(level=level):
                row.state, row.level = "prepared", level
            case CopyCopying():
                row.state = "copying"
            case CopyCommitted(summary=summary):
                row.state, row.summary = "committed", summary
            case CopyFailed():
                row.state = "failed"
            case CopyExpired():
                row.state = "expired"

    def apply_location(self, site: str, id: str, event: Event) -> None:
        """An event of a location, from the site of the repository."""
        match event:
            case LocationAdded():
                self.locations[site, id] = event
            case LocationRemoved() | LocationLost():
                self.locations.pop((site, id), None)

    def index(self) -> None:
        """Make what follows from the rows, after they were loaded."""
        self.by_command.update((row.command, id) for id, row in self.entries.items() if row.command is not None)

    def holders(self) -> dict[str, set[str]]:
        """Copy -> the sites that hold it."""
        found: dict[str, set[str]] = {}
        for (site, _), location in self.locations.items():
            found.setdefault(location.copy, set()).add(site)
        return found

    def repositories(self) -> dict[str, list[str]]:
        """Copy -> where it lies, as ``<site>/<repository>``."""
        found: dict[str, list[str]] = {}
        for (site, _), location in self.locations.items():
            place = location.repository if "/" in location.repository else f"{site}/{location.repository}"
            found.setdefault(location.copy, []).append(place)
        return {copy: sorted(places) for copy, places in found.items()}

    def content_of(self, id: str) -> ContentRow | None:
        """The content of an image, from the site where the hub had it saved and no other."""
        entry = self.entries.get(id)
        return None if entry is None else self.contents.get((entry.state.entered.site, id))

    def state_of(self, id: str) -> ImageState | None:
        """The state of an image in the catalog; ``None`` for one that is not there."""
        entry = self.entries.get(id)
        if entry is None:
            return None
        if entry.state.status == "deleted":
            return "deleted"
        content = self.content_of(id)
        if entry.state.status == "withdrawn" or (content and content.problem):
            return "failed"
        return "saved" if content and content.content else "saving"

    def find(self, name_or_id: str) -> list[str]:
        """The ids of the images with this id or name."""
        if name_or_id in self.entries:
            return [name_or_id]
        return [id for id, row in self.entries.items() if row.state.entered.name == name_or_id]
