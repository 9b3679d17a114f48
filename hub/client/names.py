"""From the names that people use to the one thing that is meant."""

from __future__ import annotations

from collections.abc import Sequence

from hub.client.errors import ConflictError, NotFoundError
from schemas.problems import conflict, not_found
from schemas.queries import AppView, ImageView

_GONE = ("deleted", "failed")


def only_app(name: str, live: Sequence[AppView], *, all: Sequence[AppView] = (), site: str | None) -> AppView:
    """The app with the id ``name``, else the one that holds the name now.

    ``live`` are those of which something exists; ``all`` also those that are gone, which only their id names.
    Raises :class:`NotFoundError` or :class:`ConflictError`.
    """
    for app in (*live, *all):
        if app.id == name:
            return app
    if not live:
        where = f" at site {site!r}" if site else ""
        former = max((app for app in all if app.name == name), key=lambda app: app.changed_at, default=None)
        remedy = "see 'calque app list'"
        if former is not None:
            remedy += f"; the last of that name is {former.state}: 'calque app describe {former.id}'"
        raise NotFoundError(not_found("app", f"there is no app {name!r}{where}", remedy))
    if len(live) > 1:
        listed = ", ".join(f"{app.site} ({app.id})" for app in live)
        message = f"{name!r} names {len(live)} apps: {listed}"
        raise ConflictError(conflict("app", message, "choose with --site, or name the id"))
    return live[0]


def only_image(name: str, found: Sequence[ImageView]) -> ImageView:
    """The image called ``name``, or with that id; living ones before those that are gone."""
    by_id = [image for image in found if image.id == name]
    chosen = by_id or [image for image in found if image.state not in _GONE]
    if not chosen:
        raise NotFoundError(not_found("image", f"there is no image {name!r}", "see 'calque image list'"))
    if len(chosen) > 1:
        listed = ", ".join(f"{image.id} ({image.state})" for image in chosen)
        raise ConflictError(conflict("image", f"{name!r} names {len(chosen)} images: {listed}", "name the id"))
    return chosen[0]


def address(app: AppView, *, service: str | None = None) -> str:
    """Where the app answers, or one of its app services. Raises :class:`NotFoundError`, :class:`ConflictError`."""
    if service is None:
        where = app.url
    else:
        found = next((each for each in app.services if each.name == service), None)
        if found is None:
            known = ", ".join(each.name for each in app.services)
            raise NotFoundError(not_found("service", f"app {app.name} has no service {service!r}", f"it has: {known}"))
        where = found.url
    if where is None:
        what = f"service {service!r} of app {app.name}" if service else f"app {app.name}"
        remedy = "start it, or name a service with --service" if service is None else "only public ones have one"
        raise ConflictError(conflict("app", f"{what} has no address ({app.state})", remedy))
    return where
