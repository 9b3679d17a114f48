"""Images are found by what they are, in an order, page by page; the index is what looking through all would find."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.application.paging import fits, page_of, place
from hub.projections import image_index, texts, views
from hub.projections.state import Projections
from schemas import events as ev
from schemas.events import Event
from schemas.names import location_token
from schemas.problems import CalqueError
from schemas.queries import ImageOrder, ImagesQuery, ImageView
from schemas.values import ImageState
from tests.unit.hub.scenes import BY, PROBLEM, content, recorded

IDS = ["a", "b", "c"]
NAMES = ["golden", "silver", "gold"]
TAGS = ["v1", "prod"]

catalog = st.one_of(
    st.builds(
        ev.CatalogEntered,
        name=st.sampled_from(NAMES),
        site=st.just("north"),
        instance=st.just("i"),
        tags=st.lists(st.sampled_from(TAGS), unique=True).map(tuple),
        comment=st.sampled_from(["", "before the upgrade"]),
        by=st.just(BY),
    ),
    st.builds(ev.CatalogWithdrawn, problem=st.just(PROBLEM)),
    st.builds(ev.CatalogDeleted, by=st.just(BY)),
    st.builds(ev.CatalogEdited, by=st.just(BY), tags=st.just(("v2",)), comment=st.just("edited")),
)


@st.composite
def told(draw: st.DrawFn) -> tuple[str, tuple[str, str, Event]]:
    id = draw(st.sampled_from(IDS))
    copy = f"copy-{id}"
    kind = draw(st.sampled_from(["catalog", "saving", "saved", "located", "removed"]))
    if kind == "catalog":
        return "hub", ("catalog", id, draw(catalog))
    if kind == "saving":
        saving = ev.ImageSaving(instance="i", instance_name="shop", template="shop@1", copies={"db": copy})
        return "north", ("image", id, saving)
    if kind == "saved":
        return "north", ("image", id, ev.ImageSaved(content=content(id, copy=copy)))
    site = draw(st.sampled_from(["north", "south"]))
    where = f"{site}/main"
    event: Event = (
        ev.LocationAdded(copy=copy, repository=where, image=id)
        if kind == "located"
        else ev.LocationRemoved(copy=copy, repository=where)
    )
    return site, ("location", location_token(copy, where), event)


questions = st.builds(
    ImagesQuery,
    name=st.sampled_from([None, None, None, "golden", "a"]),
    all=st.booleans(),
    state=st.sampled_from([None, None, *get_args(ImageState)]),
    site=st.sampled_from([None, None, "north", "south", "west"]),
    template=st.sampled_from([None, None, "shop", "shop@1", "shop@2"]),
    tags=st.lists(st.sampled_from([*TAGS, "v2"]), max_size=2).map(tuple),
    text=st.sampled_from([None, None, "GOLD", "upgrade", "v1"]),
    since=st.sampled_from([None, "2026-01-01T00:00:02Z"]),
    before=st.sampled_from([None, "2026-01-01T00:00:09Z"]),
    sort=st.sampled_from(get_args(ImageOrder)),
    descending=st.booleans(),
    limit=st.integers(1, 3),
)


def looked_through(state: Projections, query: ImagesQuery) -> list[str]:
    """What a look at every image finds."""

    def matches(view: ImageView) -> bool:
        return all(
            [
                query.name is None or query.name == view.id or query.name == view.name,
                view.state == query.state if query.state else query.all or view.state == "saved",
                query.site is None or query.site in view.sites,
                query.template is None or query.template in (view.template, view.template.partition("@")[0]),
                set(query.tags) <= set(view.tags),
                query.text is None
                or any(query.text.casefold() in each.casefold() for each in (view.name, view.comment, *view.tags)),
                query.since is None or view.created_at >= query.since,
                query.before is None or view.created_at < query.before,
            ]
        )

    found = [view for view in views.image_views(state, state.images.entries) if matches(view)]
    if query.name in state.images.entries:
        found = [view for view in found if view.id == query.name]
    keys = {"created": lambda view: view.created_at, "name": lambda view: view.name, "size": lambda view: view.size}
    found.sort(key=lambda view: (keys[query.sort](view), view.id), reverse=query.descending)
    return [view.id for view in found]


def all_pages(state: Projections, query: ImagesQuery) -> list[str]:
    found: list[str] = []
    while True:
        page = state.image_index.find(query)
        found += page.ids
        if page.next is None:
            assert page.total in (None, len(found))
            return found
        assert len(page.ids) == query.limit
        assert len(found) < (page.total or len(IDS))
        query = ImagesQuery(**{name: getattr(query, name) for name in query.__struct_fields__} | {"after": page.next})


@pytest.mark.parametrize(("few", "anew"), [(4000, 2000), (1, 1), (0, 2000)])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(told(), questions), min_size=4, max_size=40))
def test_the_index_finds_what_a_look_at_every_image_finds(
    steps: list[object], few: int, anew: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are few, and whenever orders and texts are put together anew."""
    monkeypatch.setattr(image_index, "FEW", few)
    monkeypatch.setattr(image_index, "BUILT_ANEW", anew)
    monkeypatch.setattr(texts, "JOINED_ANEW", anew)
    state = Projections()
    stories: dict[str, list[tuple[str, str, Event]]] = {"north": [], "south": [], "hub": []}
    last = ImagesQuery(all=True, limit=1), ImagesQuery(all=True, site="south")
    for step in [*steps, *last]:
        if isinstance(step, ImagesQuery):
            assert all_pages(state, step) == looked_through(state, step)
        else:
            assert isinstance(step, tuple)
            writer, event = step
            stories[writer].append(event)
            state.apply(recorded(writer, stories[writer])[-1:])
            state.image_index.refresh(most=len(stories[writer]) % 2)


def test_an_image_that_reached_a_site_is_found_there() -> None:
    state = Projections()
    entered = ev.CatalogEntered(name="golden", site="north", instance="i", by=BY)
    state.apply(recorded("hub", [("catalog", "a", entered)]))
    state.apply(recorded("north", [("image", "a", ev.ImageSaved(content=content("a", copy="c")))]))
    there = ImagesQuery(site="south")
    assert state.image_index.find(there).ids == []
    where = ev.LocationAdded(copy="c", repository="south/main", image="a")
    state.apply(recorded("south", [("location", location_token("c", "south/main"), where)]))
    assert state.image_index.find(there).ids == ["a"]
    gone = ev.LocationRemoved(copy="c", repository="south/main")
    state.apply(recorded("south", [("location", location_token("c", "south/main"), gone)]))
    assert state.image_index.find(there).ids == []


@pytest.mark.parametrize("after", ["x", "e30=", "//", "é"])
def test_a_place_that_is_none_is_refused(after: str) -> None:
    with pytest.raises(CalqueError, match="no place in a list"):
        Projections().image_index.find(ImagesQuery(after=after))
    with pytest.raises(CalqueError, match="no place in a list"):
        page_of([("a",)], limit=1, after=after)


def test_a_page_goes_on_behind_what_was_removed_meanwhile() -> None:
    keys = [("a", "1"), ("b", "2"), ("c", "3")]
    first = page_of(keys, limit=2, after=None)
    assert first == (0, 2, 3)
    assert page_of([keys[0], keys[2]], limit=2, after=place(keys[1])) == (1, 2, 2)


def test_a_reply_takes_what_fits_and_at_least_one() -> None:
    small, large = ImagesQuery(text="x" * 1000), ImagesQuery(text="x" * 2_000_000)
    assert fits([small] * 3) == 3
    assert 700 < fits([small] * 2000) < 800
    assert fits([large, small]) == 1


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_a_size(limit: int) -> None:
    with pytest.raises(CalqueError, match="out of range"):
        page_of([], limit=limit, after=None)
