"""Many sites that join at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from bus.connection import Bus
from bus.jetstream import JetStream
from bus.streams import EVENTS, add_site, set_up_hub
from schemas import subjects

COUNT = 40


async def test_sites_that_join_at_once_take_few_changes_of_the_stream(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [f"site-{number:02}" for number in range(COUNT)]
    js = JetStream(bus)
    await set_up_hub(bus)
    for site in sites:  # what a site that is there would be sourced into
        name = subjects.inbox(site)
        await js.call(f"STREAM.CREATE.{name}", {"name": name, "subjects": [subjects.events_of(site)]})
    calls: Counter[str] = Counter()
    real = JetStream.call

    async def call(
        self: JetStream, operation: str, request: Mapping[str, Any] | None = None, **named: Any
    ) -> dict[str, Any]:
        calls[operation] += 1
        return await real(self, operation, request, **named)

    monkeypatch.setattr(JetStream, "call", call)
    twice = [*sites, *sites[:3]]  # a site may be told of by two at once
    await asyncio.gather(*(add_site(bus, site, deadline_seconds=60) for site in twice))
    monkeypatch.undo()
    found = (await js.call(f"STREAM.INFO.{EVENTS}"))["config"]["sources"]
    assert sorted(source["name"] for source in found) == ["EVT_hub", *(subjects.inbox(site) for site in sites)]
    assert calls[f"STREAM.UPDATE.{EVENTS}"] < COUNT / 4
    assert calls[f"STREAM.INFO.{EVENTS}"] < COUNT / 2
