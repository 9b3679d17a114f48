"""Finding images among many: by what they are and where they lie, in an order, page by page.

The index follows the tables of :class:`~hub.projections.images.Images`: they note which images changed, and the next
question brings the index up to date. Nothing of it is state; it comes back from the tables.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

import msgspec

from hub.projections.images import Images, state_with, template_in
from hub.projections.texts import Texts
from schemas.problems import CalqueError, invalid
from schemas.queries import ImageOrder, ImagesQuery

FEW = 1000
"""So many are looked at one by one and sorted quicker than they are met on a walk through all."""
BUILT_ANEW = 2000
"""After so many changes, orders are sorted again instead of being mended one by one."""

Key = tuple[str | int, str]


class Page(NamedTuple):
    """Ids in order; ``next`` continues after the last one; ``total`` counts all that match, where counting is cheap."""

    ids: list[str]
    next: str | None
    total: int | None


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
        self._texts = Texts()
        self._unsorted = False

    def find(self, query: ImagesQuery) -> Page:
        """One page of what matches. Raises :class:`CalqueError` (invalid) for a place that is none."""
        after = None if query.after is None else _place(query)
        self.refresh()
        few = self._few(query)
        if few is None:
            total = self._counted(query)
            ids = list(islice(self._walk(query, self._orders[query.sort], after=after), query.limit + 1))
        else:
            key = _KEYS[query.sort]
            order = sorted((key(self._known[id]), id) for id in few if self._matches(query, id))
            total = len(order)
            ids = list(islice(_behind(order, after, descending=query.descending), query.limit + 1))
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

    def _few(self, query: ImagesQuery) -> Collection[str] | None:
        """Some ids, all that match among them; ``None`` when that would be many."""
        found = min((self._marked.get(mark, _NONE) for mark in _marks_asked(query)), key=len, default=None)
        if query.name is not None:
            found = {query.name} if query.name in self._known else self._marked.get(("name", query.name), _NONE)
        if found is None or len(found) > FEW:
            first, last = self._range(query)
            if last - first <= FEW:
                return [id for _, id in self._orders["created"][first:last]]
            if query.text is not None:
                return self._texts.with_text(query.text.casefold(), most=FEW)
            return None
        return found

    def _matches(self, query: ImagesQuery, id: str) -> bool:
        known = self._known[id]
        return (
            all(id in self._marked.get(mark, _NONE) for mark in _marks_asked(query))
            and (query.text is None or query.text.casefold() in known.text)
            and (query.since is None or known.created >= query.since)
            and (query.before is None or known.created < query.before)
            and (query.name is None or id == query.name or (query.name not in self._known and known.name == query.name))
        )

    def _range(self, query: ImagesQuery) -> tuple[int, int]:
        """The part of all, by when they were created, that ``since`` and ``before`` leave."""
        order = self._orders["created"]
        first = 0 if query.since is None else bisect_left(order, (query.since, ""))
        return first, len(order) if query.before is None else bisect_left(order, (query.before, ""))

    def _counted(self, query: ImagesQuery) -> int | None:
        marks = list(_marks_asked(query))
        if query.text is not None or query.since is not None or query.before is not None or len(marks) > 1:
            return None
        return len(self._marked.get(marks[0], _NONE)) if marks else len(self._known)

    def _walk(self, query: ImagesQuery, order: list[Key], *, after: Key | None) -> Iterator[str]:
        """What matches, met on a walk through all of them."""
        found = _behind(order, after, descending=query.descending)
        for mark in _marks_asked(query):
            found = filter(self._marked.get(mark, _NONE).__contains__, found)
        if query.text is None and query.since is None and query.before is None:
            return found
        return (id for id in found if self._matches(query, id))

    # --- keeping up

    def refresh(self, *, most: int | None = None) -> bool:
        """Take in what changed since the last time, at most so many images; says whether something is left."""
        images = self.images
        changed = images.changed
        for copy in images.changed_copies:
            changed.update(self._of_copy.get(copy, ()))
        images.changed_copies.clear()
        self._unsorted = self._unsorted or len(changed) > BUILT_ANEW
        for id in [changed.pop() for _ in range(len(changed) if most is None else min(most, len(changed)))]:
            self._forget(id)
            self._take(id)
        if changed:
            return True
        if self._unsorted:
            self._unsorted = False
            for name, key in _KEYS.items():
                self._orders[name] = sorted((key(known), id) for id, known in self._known.items())
            self._texts.join()
        return False

    def _forget(self, id: str) -> None:
        known = self._known.pop(id, None)
        if known is None:
            return
        for mark in known.marks:
            left = self._marked[mark]
            left.discard(id)
            if not left:
                del self._marked[mark]
        self._texts.forget(id)
        if not self._unsorted:
            for name, key in _KEYS.items():
                order = self._orders[name]
                del order[bisect_left(order, (key(known), id))]

    def _take(self, id: str) -> None:
        images = self.images
        entry, row = images.entries.get(id), images.content_of(id)
        if entry is None:
            return
        state = state_with(entry, row)
        content = row.content if row else None
        parts = [part for each in content.instances for part in each.parts] if content else []
        entered = entry.state.entered
        marks = [("state", state), ("name", entered.name), *(("tag", tag) for tag in entered.tags)]
        template = template_in(row)
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
        self._texts.take(id, known.text)
        for mark in known.marks:
            self._marked.setdefault(mark, set()).add(id)
        if not self._unsorted:
            for name, key in _KEYS.items():
                insort(self._orders[name], (key(known), id))


_NONE: frozenset[str] = frozenset()
_KEYS: dict[ImageOrder, Callable[[Known], str | int]] = {
    "created": lambda known: known.created,
    "name": lambda known: known.name,
    "size": lambda known: known.size,
}


def _behind(order: list[Key], after: Key | None, *, descending: bool) -> Iterator[str]:
    """The ids of ``order`` behind a place, one way or the other."""
    if descending:
        rest: Iterator[Key] = reversed(order if after is None else order[: bisect_left(order, after)])
    else:
        rest = iter(order if after is None else order[bisect_right(order, after) :])
    return map(itemgetter(1), rest)


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
