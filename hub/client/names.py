"""From the names that people use to the one thing that is meant."""

from __future__ import annotations

from collections.abc import Sequence

from hub.client.errors import ConflictError, NotFoundError
from schemas.problems import conflict, not_found
from schemas.queries import AppView, ImageView

_GONE = ("deleted", "failed")


def only_app(name: str, found: Sequence[AppView], *, site: str | None) -> AppView:
    """The app called ``name``, or with that id; raises :class:`NotFoundError` or :class:`ConflictError`."""
    by_id = [app for app in found if app.id == name]
    chosen = by_id or [app for app in found if app.state != "deleted"]
    if not chosen:
        where = f" at site {site!r}" if site else ""
        raise NotFoundError(not_found("app", f"there is no app {name!r}{where}", "see 'calque app list'"))
    if len(chosen) > 1:
        listed = ", ".join(f"{app.site} ({app.id})" for app in chosen)
        message = f"{name!r} names {len(chosen)} apps: {listed}"
        raise ConflictError(conflict("app", message, "choose with --site, or name the id"))
    return chosen[0]


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
