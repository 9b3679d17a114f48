"""All tables together, and which event feeds which."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from bus.events import Recorded
from bus.records import OF_SITES, OF_THE_HUB
from hub.domain.children import Child
from hub.projections.apps import Apps
from hub.projections.image_index import ImageIndex
from hub.projections.images import Images
from hub.projections.operations import Operations
from hub.projections.secrets import Secrets
from hub.projections.sites import Sites
from hub.projections.templates import Templates
from hub.projections.webhooks import Webhooks
from schemas.events import Event
from schemas.subjects import HUB

logger = logging.getLogger(__name__)


class Projections:
    """What a hub knows. ``position`` is the sequence in ``EVENTS`` of the last event taken in, ``taken`` how many
    events of each writer were; ``stopped`` are the aggregates (writer, aggregate, id) that are shown as they were
    before an event of a type unknown here, and that type."""

    def __init__(self) -> None:
        self.templates = Templates()
        self.webhooks = Webhooks()
        self.apps = Apps()
        self.images = Images()
        self.operations = Operations()
        self.sites = Sites()
        self.secrets = Secrets()
        self.stopped: dict[tuple[str, str, str], str] = {}
        self.taken: dict[str, int] = {}
        self.position = 0
        self._image_index = ImageIndex(self.images)

    @property
    def events(self) -> int:
        """How many events were taken in."""
        return sum(self.taken.values())

    @property
    def image_index(self) -> ImageIndex:
        """Finds images; follows the tables, and is no state itself."""
        if self._image_index.images is not self.images:
            self._image_index = ImageIndex(self.images)
        return self._image_index

    def apply(self, batch: Iterable[Recorded]) -> None:
        """Take in events. An event that this version does not know stops its aggregate, never the stream."""
        for recorded in batch:
            self.position = recorded.sequence
            self.taken[recorded.writer] = self.taken.get(recorded.writer, 0) + 1
            key = (recorded.writer, recorded.aggregate, recorded.id)
            if key in self.stopped:
                continue
            event = recorded.event
            if isinstance(event, Event):
                self._apply(recorded, event)
            else:
                self.stopped[key] = recorded.envelope.type
                logger.warning(
                    "%s %s of %s holds the unknown event %s: it is shown as it was before",
                    recorded.aggregate,
                    recorded.id,
                    recorded.writer,
                    recorded.envelope.type,
                )

    def is_stopped(self, writer: str, aggregate: str, id: str) -> bool:
        """Whether this hub knows no more of an aggregate than what was before an unknown event."""
        return (writer, aggregate, id) in self.stopped

    def child(self, site: str, id: str) -> Child | None:
        """What ``site`` made of the command ``id``."""
        row = self.operations.get(site, id)
        if row is not None and row.operation is not None:
            outcome = row.operation.outcome
            return Child(outcome or "running", row.operation.problem)
        command = self.operations.commands.get((site, id))
        if command is None:
            return None
        if command.rejected is not None:
            return Child("rejected", command.rejected.problem)
        return Child("succeeded")

    def _apply(self, recorded: Recorded, event: Event) -> None:
        writer, aggregate, id = recorded.writer, recorded.aggregate, recorded.id
        if aggregate in (OF_SITES if writer == HUB else OF_THE_HUB):
            logger.warning("%s wrote the %s %s, which is not its to write", writer, aggregate, id)
            return
        envelope = recorded.envelope
        match aggregate:
            case "operation":
                self.operations.apply(writer, id, event, time=envelope.time, causation=envelope.causationid)
            case "command":
                self.operations.apply_command(writer, id, event)
            case "instance":
                self.apps.apply(writer, id, event, time=envelope.time, operation=envelope.operationid)
            case "copy":
                self.images.apply_copy(writer, id, event)
            case "location":
                self.images.apply_location(writer, id, event)
            case "image":
                self.images.apply_image(writer, id, event)
            case "broker":
                self.sites.apply_broker(writer, id, event)
            case "secret":
                self.secrets.apply(writer, id, event, time=envelope.time)
            case "site":
                self.sites.apply_site(writer, event)
            case "template":
                self.templates.apply(id, event, time=envelope.time, causation=envelope.causationid)
            case "webhook":
                self.webhooks.apply(id, event, time=envelope.time, causation=envelope.causationid)
            case "catalog":
                self.images.apply_catalog(id, event, time=envelope.time, causation=envelope.causationid)
            case "membership":
                self.sites.apply_membership(id, event)
            case "signer":
                pass  # whom a site trusts is its own affair
            case _:
                pass  # claims are read from the hub's own stream, when they are decided
