"""Events of types that were replaced are read as what replaced them, by every reader. On types of these tests' own."""

from __future__ import annotations

from typing import Any

import pytest

from bus.records import UnknownEvent, record
from hub.projections.state import Projections
from schemas.envelope import Envelope, encode, to_raw
from schemas.events import InstanceDeploying, InstanceRunning
from schemas.upcasting import UPCASTERS, Upcasters
from site_agent.domain.site import Site
from tests.unit.hub.scenes import BY, SHOP

FIRST, SECOND = "calque.event.instance.reached.v1", "calque.event.instance.reached.v2"
NOW = InstanceRunning.TYPE


def joined(data: dict[str, Any]) -> dict[str, Any]:
    """Once host and port were fields of their own."""
    return {"address": f"{data['host']}:{data['port']}"}


def with_scheme(data: dict[str, Any]) -> dict[str, Any]:
    """Then the address had no scheme."""
    return {"url": f"http://{data['address']}"}


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Upcasters()
    steps.register(FIRST, SECOND, joined)
    steps.register(SECOND, NOW, with_scheme)
    monkeypatch.setattr(UPCASTERS, "steps", steps.steps)


def stored(type: str, data: Any, *, event: str = "reached", sequence: int = 1, aggregate: str = "instance") -> Any:
    envelope = Envelope(
        id=f"north/{sequence}", type=type, source="north", time="2026-01-01T00:00:00Z", specversion="1.0",
        data=to_raw(data),
    )  # fmt: skip
    subject = f"calque.evt.north.{aggregate}.i1.{event}"
    return record(sequence=sequence, subject=subject, payload=encode(envelope))


@pytest.mark.parametrize(
    ("type", "data"), [(FIRST, {"host": "h", "port": 80}), (SECOND, {"address": "h:80", "more": "ignored"})]
)
def test_an_old_event_is_read_as_the_newest(replaced: None, type: str, data: dict[str, Any]) -> None:
    one = stored(type, data)
    assert one.event == InstanceRunning(url="http://h:80")
    assert one.refused is None
    assert one.envelope.type == type  # what is stored is what it was


def test_hub_and_agent_fold_it(replaced: None) -> None:
    begun = stored(InstanceDeploying.TYPE, InstanceDeploying(name="shop", template=SHOP, by=BY), event="deploying")
    reached = stored(FIRST, {"host": "h", "port": 80}, sequence=2)
    state, site = Projections(), Site("north")
    state.apply([begun, reached])
    for one in (begun, reached):
        site.apply(one.aggregate, one.id, one.event, time=one.envelope.time, sequence=one.sequence)
    assert (state.apps.rows["north", "i1"].state, state.apps.rows["north", "i1"].url) == ("running", "http://h:80")
    assert (site.instances["i1"].state, site.instances["i1"].url) == ("running", "http://h:80")
    assert not state.stopped


@pytest.mark.parametrize("data", [{}, {"host": 1}, None, [], "text", 7])
def test_what_no_version_wrote_is_unknown_and_nothing_raises(replaced: None, data: Any) -> None:
    assert isinstance(stored(FIRST, data).event, UnknownEvent)


def test_it_stands_on_its_own_old_subject_only(replaced: None) -> None:
    assert stored(FIRST, {"host": "h", "port": 80}, event="stopped").refused is not None
    assert stored(FIRST, {"host": "h", "port": 80}, aggregate="copy").refused is not None


def test_a_newer_type_stays_unknown(replaced: None) -> None:
    assert isinstance(stored("calque.event.instance.reached.v9", {}).event, UnknownEvent)


def test_a_step_that_makes_no_sense_is_not_taken() -> None:
    steps = Upcasters()
    steps.register(FIRST, SECOND, joined)
    with pytest.raises(ValueError, match="has an upcaster already"):
        steps.register(FIRST, NOW, joined)
    with pytest.raises(ValueError, match="would become itself"):
        steps.register(SECOND, FIRST, joined)
    with pytest.raises(ValueError, match="another aggregate"):
        steps.register(SECOND, "calque.event.copy.reached.v3", joined)


def test_the_product_has_no_step_for_a_type_that_it_writes() -> None:
    from schemas.registry import MESSAGES

    assert not UPCASTERS.steps.keys() & MESSAGES.keys()
