"""Apps and images as the hub lists them."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from hub.client.names import only_app, only_image
from schemas import queries
from schemas.values import ImageState

T = TypeVar("T", bound=queries.View)

ON_A_PAGE = 1000


class Catalog(abc.ABC):
    """Lists come in pages; these methods put them together."""

    @abc.abstractmethod
    async def ask(self, what: str, question: queries.Query, reply: type[T]) -> T: ...

    async def apps(
        self, *, name: str | None = None, site: str | None = None, all: bool = False, configuration: bool = False
    ) -> tuple[queries.AppView, ...]:
        """Apps; deleted ones with ``all``, every variable of theirs with ``configuration``."""
        question = queries.AppsQuery(name=name, site=site, all=all, configuration=configuration)
        found: list[queries.AppView] = []
        while True:
            page = await self.ask("apps", question, queries.AppsView)
            found += page.apps
            if page.next is None:
                return tuple(found)
            question = msgspec.structs.replace(question, after=page.next)

    async def app(self, name: str, *, site: str | None = None, configuration: bool = False) -> queries.AppView:
        """One app by id, or the one that holds the name now; what is gone is found by its id only."""
        live = await self.apps(name=name, site=site, configuration=configuration)
        gone = () if live else await self.apps(name=name, site=site, all=True, configuration=configuration)
        return only_app(name, live, all=gone, site=site)

    async def images(
        self,
        *,
        name: str | None = None,
        all: bool = False,
        state: ImageState | None = None,
        site: str | None = None,
        template: str | None = None,
        tags: Sequence[str] = (),
        text: str | None = None,
        since: str | None = None,
        before: str | None = None,
        sort: queries.ImageOrder = "created",
        descending: bool = False,
        limit: int | None = None,
    ) -> tuple[queries.ImageView, ...]:
        """Saved images; with ``all`` also those being saved, failed or deleted. The rest is as in
        :class:`schemas.queries.ImagesQuery`; without a ``limit`` all pages are fetched."""
        question = queries.ImagesQuery(
            name=name,
            all=all,
            state=state,
            site=site,
            template=template,
            tags=tuple(tags),
            text=text,
            since=since,
            before=before,
            sort=sort,
            descending=descending,
            limit=ON_A_PAGE if limit is None else min(max(limit, 1), ON_A_PAGE),
        )
        found: list[queries.ImageView] = []
        while True:
            page = await self.ask("images", question, queries.ImagesView)
            found += page.images
            if page.next is None or (limit is not None and len(found) >= limit):
                return tuple(found if limit is None else found[:limit])
            question = msgspec.structs.replace(question, after=page.next)

    async def image(self, name: str) -> queries.ImageView:
        """One image by name or id, in whatever state."""
        return only_image(name, await self.images(name=name, all=True))
