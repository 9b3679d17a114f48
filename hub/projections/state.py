"""All tables together, and which event feeds which."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from bus.events import Recorded
from bus.records import OF_SITES, OF_THE_HUB
from hub.domain.children import Child
from hub.projections.apps import Apps
from hub.projections.image_index import ImageIndex
from hub.projections.images import Images
from hub.projections.operations import Operations
from hub.projections.secrets import Secrets
from hub.projections.sharing import SharedTemplates
from hub.projections.sites import Sites
from hub.projections.templates import Templates
from hub.projections.webhooks import Webhooks
from schemas.events import Event
from schemas.subjects import HUB

logger = logging.getLogger(__name__)

Fold = Callable[[str, str, Event, str, str | None, str | None], None]


def may_write(writer: str, aggregate: str) -> bool:
    """Whether events of such aggregates are ``writer``'s to write."""
    return aggregate not in (OF_SITES if writer == HUB else OF_THE_HUB)


def touch(touched: set[tuple[str, str, str]], aggregate: str, writer: str, id: str, causation: str | None) -> None:
    """Note of which aggregates an event tells: some are about the command that caused them, too."""
    touched.add((aggregate, writer, id))
    if causation is not None:
        touched.add(("command", writer, causation))


class Projections:
    """What a hub knows. ``position`` is the sequence in ``EVENTS`` of the last event taken in, ``taken`` how many
    events of each writer were; ``stopped`` are the aggregates (writer, aggregate, id) that are shown as they were
    before an event of a type unknown here, and that type."""

    def __init__(self) -> None:
        self.templates = Templates()
        self.webhooks = Webhooks()
        shared = SharedTemplates()
        self.apps = Apps(shared)
        self.images = Images(shared)
        self.operations = Operations()
        self.sites = Sites()
        self.secrets = Secrets()
        self.stopped: dict[tuple[str, str, str], str] = {}
        self.taken: dict[str, int] = {}
        self.position = 0
        self.touched: set[tuple[str, str, str]] | None = None
        """While somebody wants to know: the aggregates of which events were taken in, by name, writer and id."""
        self._image_index = ImageIndex(self.images)
        self.folds: Mapping[str, Fold] = {
            "operation": self.operations.apply,
            "command": self.operations.apply_command,
            "instance": self.apps.apply,
            "copy": self.images.apply_copy,
            "location": self.images.apply_location,
            "image": self.images.apply_image,
            "broker": self.sites.apply_broker,
            "secret": self.secrets.apply,
            "site": self.sites.apply_site,
            "template": self.templates.apply,
            "webhook": self.webhooks.apply,
            "catalog": self.images.apply_catalog,
            "membership": self.sites.apply_membership,
        }
        """What takes in the events of an aggregate: by writer, id, event, time, operation and causation.

        Whom a site trusts (``signer``) is its own affair; claims are read from the hub's own stream."""

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
            writer, aggregate, id = recorded.writer, recorded.aggregate, recorded.id
            self.taken[writer] = self.taken.get(writer, 0) + 1
            if self.touched is not None:
                touch(self.touched, aggregate, writer, id, recorded.envelope.causationid)
            key = (writer, aggregate, id)
            if key in self.stopped:
                continue
            event = recorded.event
            if isinstance(event, Event):
                if not may_write(writer, aggregate):
                    logger.warning("%s wrote the %s %s, which is not its to write", writer, aggregate, id)
                    continue
                fold = self.folds.get(aggregate)
                if fold is not None:
                    envelope = recorded.envelope
                    fold(writer, id, event, envelope.time, envelope.operationid, envelope.causationid)
            else:
                self.stopped[key] = recorded.envelope.type
                logger.warning(
                    "%s %s of %s holds the unknown event %s: it is shown as it was before",
                    aggregate,
                    id,
                    writer,
                    recorded.envelope.type,
                )

    def is_stopped(self, writer: str, aggregate: str, id: str) -> bool:
        """Whether this hub knows no more of an aggregate than what was before an unknown event."""
        return (writer, aggregate, id) in self.stopped

    def child(self, site: str, id: str) -> Child | None:
        """What ``site`` made of the command ``id``."""
        row = self.operations.get(site, id)
        if row is not None:
            return Child(row.outcome or "running", self.operations.progress(row).problem)
        command = self.operations.commands.get((site, id))
        if command is None:
            return None
        if command.rejected is not None:
            return Child("rejected", command.rejected.problem)
        return Child("succeeded")
