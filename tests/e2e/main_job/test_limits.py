"""A save that is slowed down shows how far it is; cancelled, it stops and leaves nothing."""

from __future__ import annotations

import asyncio

import pytest

from hub.client import OperationFailedError, Snapshot
from schemas.values import TemplateRef
from tests.e2e.main_job.ways import OPERATION_SECONDS, finished
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack"), pytest.mark.full]

REPOSITORY = "filesystem"
HARDLY_ANY = 60
"""Bytes per second: the copies of the smallest app would take minutes."""


async def test_a_slow_save_tells_its_bytes_and_stops_when_it_is_cancelled(stack: Stack) -> None:
    async with await stack.client() as client:
        started = await client.deploy(TemplateRef(name="hackathon"), name="slow", site="north")
        await finished(client, started)
        app = await client.app(started.target)
        before = await client.repository(REPOSITORY, site="north")

        saving = await client.save(app.id, name="slow-1", bytes_per_second=HARDLY_ANY)
        assert saving.operation is not None
        told = asyncio.Event()

        def look(now: Snapshot) -> None:
            if any(rate.progress.done for rate in now.parts.values()):
                told.set()

        waiting = asyncio.ensure_future(client.wait(saving.operation, timeout=OPERATION_SECONDS, observer=look))
        await asyncio.wait_for(told.wait(), OPERATION_SECONDS)
        await client.cancel(saving.operation)
        with pytest.raises(OperationFailedError) as failed:
            await waiting
        assert failed.value.view.state == "cancelled"

        assert (await client.image(saving.target)).state == "failed"
        after = await client.repository(REPOSITORY, site="north")
        assert (after.copies, after.stored) == (before.copies, before.stored)
        assert after.staging == 0

        # Nothing of it is in the way of the next one.
        await finished(client, await client.save(app.id, name="slow-2"))
