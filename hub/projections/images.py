"""Images: the hub's catalog, the content that sites wrote, copies, and where copies lie."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hub.domain import catalog
from hub.domain.catalog import CatalogState
from hub.projections.rows import Rows
from hub.projections.sharing import SharedTemplates
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


_contents = msgspec.json.Decoder(ContentRow)
_copies = msgspec.json.Decoder(CopyRow)


class Images:
    """Four tables; the keys of those that sites feed begin with the site."""

    def __init__(self, shared: SharedTemplates) -> None:
        self._shared = shared
        self.entries: dict[str, EntryRow] = {}
        self.contents: Rows[ContentRow] = Rows(_contents.decode, kept=self._share)
        self.copies: Rows[CopyRow] = Rows(_copies.decode)
        self.locations: dict[tuple[str, str], LocationAdded] = {}
        self.by_command: dict[str, str] = {}
        self.by_copy: dict[str, tuple[tuple[str, str], ...]] = {}
        """Copy -> keys of its locations."""
        self.changed: set[str] = set()
        """Images of which something was told since an index looked; ``changed_copies``: copies whose locations were."""
        self.changed_copies: set[str] = set()

    def apply_catalog(
        self, _writer: str, id: str, event: Event, time: str, _operation: str | None, causation: str | None
    ) -> None:
        """An event of the hub's catalog."""
        row = self.entries.get(id)
        state = catalog.evolve(row.state if row else None, event)
        if state is None:
            return
        self.changed.add(id)
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

    def apply_image(
        self, site: str, id: str, event: Event, _time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """An event of an image's content, from its source site."""
        row = self.contents.get((site, id))
        if row is None:
            row = self.contents[site, id] = ContentRow()
        self.changed.add(id)
        match event:
            case ImageSaving():
                row.saving = event
            case ImageSaved(content=content):
                self._shared.in_content(content)
                row.content = content
            case ImageFound(content=content):
                self._shared.in_content(content)
                row.content, row.found = row.content or content, event
            case ImageFailed(problem=problem):
                row.problem = problem

    def apply_copy(
        self, site: str, id: str, event: Event, _time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """An event of a copy, from the site where it was made."""
        row = self.copies.get((site, id))
        if row is None:
            row = self.copies[site, id] = CopyRow()
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

    def apply_location(
        self, site: str, id: str, event: Event, _time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """An event of a location, from the site of the repository."""
        key = site, id
        match event:
            case LocationAdded(copy=copy):
                before = self.locations.get(key)
                if before is not None and before.copy != copy:
                    self._left(key, before.copy)
                if before is None or before.copy != copy:
                    self.by_copy[copy] = (*self.by_copy.get(copy, ()), key)
                self.locations[key] = event
                self.changed_copies.add(copy)
            case LocationRemoved() | LocationLost():
                location = self.locations.pop(key, None)
                if location is not None:
                    self._left(key, location.copy)

    def _left(self, key: tuple[str, str], copy: str) -> None:
        """The location ``key`` is none of ``copy`` any more."""
        self.changed_copies.add(copy)
        left = tuple(each for each in self.by_copy[copy] if each != key)
        if left:
            self.by_copy[copy] = left
        else:
            del self.by_copy[copy]

    def index(self) -> None:
        """Make what follows from the rows, after they were loaded."""
        self.by_command.update((row.command, id) for id, row in self.entries.items() if row.command is not None)
        for key, location in self.locations.items():
            self.by_copy[location.copy] = (*self.by_copy.get(location.copy, ()), key)
        self.changed.update(self.entries)

    def _share(self, row: ContentRow) -> None:
        for content in (row.content, row.found.content if row.found else None):
            if content is not None:
                self._shared.in_content(content)

    def holders(self, copy: str) -> frozenset[str]:
        """The sites that hold a copy."""
        return frozenset(site for site, _ in self.by_copy.get(copy, ()))

    def lock_of(self, copies: Iterable[str]) -> tuple[str, str]:
        """Until when the last lock of some copies lasts, and where that is; empty when none was ever locked."""
        keys = (key for copy in copies for key in self.by_copy.get(copy, ()))
        ends = ((self.locations[key].keep_until, place_of(key[0], self.locations[key])) for key in keys)
        return max((end for end in ends if end[0]), default=("", ""))

    def places(self, copy: str) -> tuple[str, ...]:
        """Where a copy lies, as ``<site>/<repository>``."""
        return tuple(sorted(place_of(key[0], self.locations[key]) for key in self.by_copy.get(copy, ())))

    def sites_with(self, copies: Iterable[str], *, else_at: str) -> frozenset[str]:
        """The sites that hold all of ``copies``; an image without any is where it was saved."""
        holders = [self.holders(copy) for copy in copies]
        return frozenset.intersection(*holders) if holders else frozenset((else_at,))

    def template_of(self, id: str) -> str:
        """``name@version`` of the template that an image was made from; empty while nobody said."""
        return template_in(self.content_of(id))

    def content_of(self, id: str) -> ContentRow | None:
        """The content of an image, from the site where the hub had it saved and no other. Not to be changed: it may be
        a copy."""
        entry = self.entries.get(id)
        return None if entry is None else self.contents.look((entry.state.entered.site, id))

    def state_of(self, id: str) -> ImageState | None:
        """The state of an image in the catalog; ``None`` for one that is not there."""
        entry = self.entries.get(id)
        return None if entry is None else state_with(entry, self.content_of(id))

    def find(self, name_or_id: str) -> list[str]:
        """The ids of the images with this id or name."""
        if name_or_id in self.entries:
            return [name_or_id]
        return [id for id, row in self.entries.items() if row.state.entered.name == name_or_id]


def place_of(site: str, location: LocationAdded) -> str:
    """The repository of a location, as ``<site>/<repository>``."""
    name = location.repository
    return name if "/" in name else f"{site}/{name}"


def state_with(entry: EntryRow, content: ContentRow | None) -> ImageState:
    """The state of an image in the catalog, with what its site tells of it."""
    if entry.state.status == "deleted":
        return "deleted"
    if entry.state.status == "withdrawn" or (content and content.problem):
        return "failed"
    return "saved" if content and content.content else "saving"


def template_in(content: ContentRow | None) -> str:
    """``name@version`` of the template that an image was made from; empty while nobody said."""
    if content is not None and content.content is not None and content.content.instances:
        template = content.content.instances[0].configuration.template
        return f"{template.name}@{template.version}"
    return content.saving.template if content is not None and content.saving is not None else ""
