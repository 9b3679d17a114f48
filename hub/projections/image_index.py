"""Finding images among many: by what they are and where they lie, in an order, page by page.

The index follows the tables of :class:`~hub.projections.images.Images`: they note which images changed, and the next
question brings the index up to date. Nothing of it is state; it comes back from the tables.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Set
from typing import NamedTuple

import msgspec

from hub.projections.images import Images
from schemas.problems import CalqueError, invalid
from schemas.queries import ImageOrder, ImagesQuery

SORTED_AT_ONCE = 4000
"""So many are sorted quicker than they are met on a walk through all."""
BUILT_ANEW = 2000
"""After so many changes, orders are sorted again instead of being mended one by one."""

Key = tuple[str | int, str]


class Page(NamedTuple):
    """Ids in order; ``next`` continues after the last one, ``total`` counts all that match."""

    ids: list[str]
    next: str | None
    total: int


class Known(NamedTuple):
    """What the index holds of one image."""

    created: str
    name: str
    size: int
    text: str
    marks: tuple[tuple[str, str], ...]


class ImageIndex:
    """Looks images up in ``images``."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self._known: dict[str, Known] = {}
        self._marked: dict[tuple[str, str], set[str]] = {}
        self._of_copy: dict[str, set[str]] = {}
        self._orders: dict[ImageOrder, list[Key]] = {"created": [], "name": [], "size": []}

    def find(self, query: ImagesQuery) -> Page:
        """One page of what matches. Raises :class:`CalqueError` (invalid) for a place that is none."""
        after = None if query.after is None else _place(query)
        self.refresh()
        matching = self._matching(query)
        total = len(self._known) if matching is None else len(matching)
        ids = list(self._page(query, matching, after=after, most=query.limit + 1))
        if len(ids) <= query.limit:
            return Page(ids, None, total)
        ids.pop()
        return Page(ids, self.place_after(query, ids[-1]), total)

    def place_after(self, query: ImagesQuery, id: str) -> str:
        """The place in ``query`` behind the image ``id``."""
        place = [query.sort, query.descending, _KEYS[query.sort](self._known[id]), id]
        return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()

    def count(self, field: str, value: str) -> int:
        """How many have this mark, for example ``site``, ``north`` or ``state``, ``saved``."""
        self.refresh()
        return len(self._marked.get((field, value), ()))

    # --- looking up

    def _matching(self, query: ImagesQuery) -> Set[str] | None:
        """The ids that match; ``None``: all."""
        sets = [self._marked.get(mark, set()) for mark in _marks_asked(query)]
        if query.name is not None:
            sets.append({query.name} if query.name in self._known else self._marked.get(("name", query.name), set()))
        if query.since is not None or query.before is not None:
            order = self._orders["created"]
            first = 0 if query.since is None else bisect_left(order, (query.since, ""))
            last = len(order) if query.before is None else bisect_left(order, (query.before, ""))
            sets.append({id for _, id in order[first:last]})
        sets.sort(key=len)
        found = None if not sets else sets[0] if len(sets) == 1 else sets[0].intersection(*sets[1:])
        if query.text is not None:
            text = query.text.casefold()
            ids: Iterable[str] = self._known if found is None else found
            found = {id for id in ids if text in self._known[id].text}
        return found

    def _page(self, query: ImagesQuery, matching: Set[str] | None, *, after: Key | None, most: int) -> Iterator[str]:
        if matching is not None and len(matching) <= SORTED_AT_ONCE:
            key = _KEYS[query.sort]
            order: list[Key] = sorted((key(self._known[id]), id) for id in matching)
        else:
            order = self._orders[query.sort]
        if query.descending:
            places = range((len(order) if after is None else bisect_left(order, after)) - 1, -1, -1)
        else:
            places = range(0 if after is None else bisect_right(order, after), len(order))
        for place in places:
            id = order[place][1]
            if matching is None or id in matching:
                yield id
                most -= 1
                if most == 0:
                    return

    # --- keeping up

    def refresh(self) -> None:
        """Take in what changed since the last time."""
        images = self.images
        changed = images.changed
        for copy in images.changed_copies:
            changed.update(self._of_copy.get(copy, ()))
        images.changed_copies.clear()
        if not changed:
            return
        anew = len(changed) > BUILT_ANEW
        for id in changed:
            self._forget(id, in_orders=not anew)
            self._take(id, in_orders=not anew)
        changed.clear()
        if anew:
            for name, key in _KEYS.items():
                self._orders[name] = sorted((key(known), id) for id, known in self._known.items())

    def _forget(self, id: str, *, in_orders: bool) -> None:
        known = self._known.pop(id, None)
        if known is None:
            return
        for mark in known.marks:
            self._marked[mark].discard(id)
        if in_orders:
            for name, key in _KEYS.items():
                order = self._orders[name]
                del order[bisect_left(order, (key(known), id))]

    def _take(self, id: str, *, in_orders: bool) -> None:
        images = self.images
        entry, state = images.entries.get(id), images.state_of(id)
        if entry is None or state is None:
            return
        row = images.content_of(id)
        content = row.content if row else None
        parts = [part for each in content.instances for part in each.parts] if content else []
        entered = entry.state.entered
        marks = [("state", state), ("name", entered.name), *(("tag", tag) for tag in entered.tags)]
        template = images.template_of(id)
        marks += [("template", template), ("template", template.partition("@")[0])]
        if content is not None and state == "saved":
            marks += [("site", site) for site in images.sites_with([part.copy for part in parts], else_at=entered.site)]
        for part in parts:
            self._of_copy.setdefault(part.copy, set()).add(id)
        known = Known(
            created=entry.created_at,
            name=entered.name,
            size=sum(part.size for part in parts),
            text=f"{entered.name}\n{entered.comment}\n{' '.join(entered.tags)}".casefold(),
            marks=tuple(dict.fromkeys(marks)),
        )
        self._known[id] = known
        for mark in known.marks:
            self._marked.setdefault(mark, set()).add(id)
        if in_orders:
            for name, key in _KEYS.items():
                insort(self._orders[name], (key(known), id))


_KEYS: dict[ImageOrder, Callable[[Known], str | int]] = {
    "created": lambda known: known.created,
    "name": lambda known: known.name,
    "size": lambda known: known.size,
}


def _marks_asked(query: ImagesQuery) -> Iterator[tuple[str, str]]:
    if query.state is not None:
        yield "state", query.state
    elif not query.all:
        yield "state", "saved"
    for field, value in (("site", query.site), ("template", query.template)):
        if value is not None:
            yield field, value
    for tag in query.tags:
        yield "tag", tag


def _place(query: ImagesQuery) -> Key:
    try:
        sort, descending, key, id = msgspec.json.decode(
            base64.urlsafe_b64decode(query.after or ""), type=tuple[str, bool, str | int, str]
        )
    except (msgspec.MsgspecError, binascii.Error, UnicodeEncodeError, ValueError):
        problem = invalid("after", "this is no place in a list of images", "use what `next` of the page before says")
        raise CalqueError(problem) from None
    if (sort, descending) != (query.sort, query.descending) or isinstance(key, int) != (sort == "size"):
        problem = invalid("after", f"this place belongs to a list in another order ({sort})", "begin without `after`")
        raise CalqueError(problem)
    return key, id
