"""Copy repositories, put together from the tables."""

from __future__ import annotations

from hub.projections.state import Projections
from schemas.repositories import RepositoryView


def repository_views(state: Projections, *, site: str | None = None) -> tuple[RepositoryView, ...]:
    """Repositories by site and name, with what lies in each."""
    held: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for (where, _), location in state.images.locations.items():
        name = location.repository.partition("/")[2] or location.repository
        held.setdefault((where, name), []).append((location.image, location.stored))
    return tuple(
        RepositoryView(
            site=where,
            name=row.registered.name,
            state="lost" if row.lost else "registered",
            copies=len(held.get((where, row.registered.name), ())),
            images=_named(state, {image for image, _ in held.get((where, row.registered.name), ())}),
            stored=sum(stored for _, stored in held.get((where, row.registered.name), ())),
            signing_key=row.registered.signing_key,
            protocols=row.registered.protocols,
            version=row.registered.version,
        )
        for (where, _), row in sorted(state.sites.brokers.items(), key=lambda item: item[0])
        if row.registered.kind == "crb" and site in (None, where)
    )


def _named(state: Projections, images: set[str]) -> tuple[str, ...]:
    """The names of those that are in the catalog."""
    saved = [id for id in images if state.images.state_of(id) == "saved"]
    return tuple(sorted(state.images.entries[id].state.entered.name for id in saved))
