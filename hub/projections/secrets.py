"""Which secrets people gave to sites: names, versions and who it was. Values are at the sites alone."""

from __future__ import annotations

from typing import NamedTuple

from schemas.events import Event, SecretRemoved, SecretSet
from schemas.site_secrets import SecretView


class SecretRow(NamedTuple):
    """The last setting of a secret."""

    said: SecretSet
    set_at: str


class Secrets:
    """Secrets by site and name."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], SecretRow] = {}

    def apply(
        self, site: str, name: str, event: Event, time: str, _operation: str | None, _causation: str | None
    ) -> None:
        """An event of a site about one of its secrets."""
        match event:
            case SecretSet():
                self.rows[site, name] = SecretRow(event, time)
            case SecretRemoved():
                self.rows.pop((site, name), None)

    def views(self, *, site: str | None) -> tuple[SecretView, ...]:
        """By site and name."""
        return tuple(
            SecretView(site=where, name=name, version=row.said.version, set_by=row.said.by.principal, set_at=row.set_at)
            for (where, name), row in sorted(self.rows.items(), key=lambda item: item[0])
            if site in (None, where)
        )
