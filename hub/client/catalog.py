"""Apps, images and operations as the hub lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from hub.client.asking import Asking
from hub.client.errors import NotFoundError
from hub.client.names import only_app, only_image
from schemas import queries
from schemas.problems import not_found
from schemas.values import ImageState, OperationState

Item = TypeVar("Item")
Page = TypeVar("Page", queries.AppsView, queries.ImagesView, queries.OperationsView)

ON_A_PAGE = 1000


class Catalog(Asking):
    """Lists come in pages; these methods put them together."""

    async def apps(
        self, *, name: str | None = None, site: str | None = None, all: bool = False, configuration: bool = False
    ) -> tuple[queries.AppView, ...]:
        """Apps; deleted ones with ``all``, every variable of theirs with ``configuration``."""
        question = queries.AppsQuery(name=name, site=site, all=all, configuration=configuration)
        return await self._pages("apps", question, queries.AppsView, lambda page: page.apps)

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
        return await self._pages("images", question, queries.ImagesView, lambda page: page.images, limit=limit)

    async def image(self, name: str) -> queries.ImageView:
        """One image by name or id, in whatever state."""
        return only_image(name, await self.images(name=name, all=True))

    async def operations(
        self, *, state: OperationState | None = None, target: str | None = None, limit: int = 100
    ) -> tuple[queries.OperationView, ...]:
        """Operations, newest first."""
        question = queries.OperationsQuery(state=state, target=target, limit=limit)
        return await self._pages(
            "operations", question, queries.OperationsView, lambda page: page.operations, limit=limit
        )

    async def operation(self, id: str) -> queries.OperationView:
        """One operation."""
        found = await self._look(id)
        if found is None:
            message = f"there is no operation {id!r}"
            raise NotFoundError(not_found("operation", message, "see 'calque operation list'"), correlation=id)
        return found

    async def _look(self, id: str) -> queries.OperationView | None:
        found = await self.ask("operations", queries.OperationsQuery(id=id), queries.OperationsView)
        return found.operations[0] if found.operations else None

    async def _pages(
        self,
        what: str,
        question: Any,
        reply: type[Page],
        items: Callable[[Page], Sequence[Item]],
        *,
        limit: int | None = None,
    ) -> tuple[Item, ...]:
        """The items of as many pages as it takes."""
        found: list[Item] = []
        while True:
            page = await self.ask(what, question, reply)
            found += items(page)
            if page.next is None or (limit is not None and len(found) >= limit):
                return tuple(found[:limit])
            question = msgspec.structs.replace(question, after=page.next)
