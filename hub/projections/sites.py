"""Sites: membership as the hub wrote it, brokers and announcements as the sites wrote them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hub.domain import membership
from schemas.events import BrokerLost, BrokerRegistered, Event, SiteAnnounced
from schemas.values import SiteState


class BrokerRow(msgspec.Struct, kw_only=True):
    """A broker as it registered, and whether it still answers."""

    registered: BrokerRegistered
    lost: bool = False


class Sites:
    """Members, brokers by (site, ``<kind>-<name>``), announcements by site, and by key the site whose repository
    signs or signed with it."""

    def __init__(self) -> None:
        self.states: dict[str, SiteState] = {}
        self.brokers: dict[tuple[str, str], BrokerRow] = {}
        self._at: dict[str, dict[str, BrokerRow]] = {}
        self.announced: dict[str, SiteAnnounced] = {}
        self.signers: dict[str, str] = {}

    def brokers_at(self, site: str) -> Iterable[BrokerRow]:
        """Those of one site: a deployment asks for them, and there may be a thousand sites."""
        return self._at.get(site, {}).values()

    def index(self) -> None:
        """Make anew what follows from the rows."""
        self._at.clear()
        for (site, id), row in self.brokers.items():
            self._at.setdefault(site, {})[id] = row

    def apply_membership(
        self, _writer: str, site: str, event: Event, _time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """An event of the hub about a site."""
        state = membership.evolve(self.states.get(site), event)
        if state is not None:
            self.states[site] = state

    def apply_broker(
        self, site: str, id: str, event: Event, _time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """An event of a site about a broker."""
        match event:
            case BrokerRegistered():
                row = self.brokers[site, id] = BrokerRow(registered=event)
                self._at.setdefault(site, {})[id] = row
                if event.kind == "crb" and event.signing_key:
                    # Two sites with one key: the order between them says nothing, their names do.
                    self.signers[event.signing_key] = min(site, self.signers.get(event.signing_key, site))
            case BrokerLost() if (site, id) in self.brokers:
                self.brokers[site, id].lost = True

    def apply_site(
        self, site: str, _id: str, event: Event, _time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """What a site says about itself."""
        if isinstance(event, SiteAnnounced):
            self.announced[site] = event
