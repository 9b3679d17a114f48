"""Whether a hub that has just been started knows its sites and their brokers already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from hub.client.client import Client
from hub.client.errors import HubUnreachableError, WaitTimedOutError
from schemas.problems import Actor, Problem

_POLL_SECONDS = 0.1


async def sites_ready(
    client: Client, *, sites: Iterable[str], brokers: Iterable[str], timeout_seconds: float = 30.0
) -> None:
    """Return when each of ``sites`` is online with all of ``brokers`` (``<kind>-<name>``) registered.

    Raises :class:`WaitTimedOutError` naming what is missing.
    """
    wanted = {f"{site}/{broker}" for site in sites for broker in brokers}
    deadline = time.monotonic() + timeout_seconds
    missing = wanted
    while missing:
        try:
            online = {site.name for site in await client.sites() if site.state == "online"}
            there = {
                f"{broker.site}/{broker.kind}-{broker.name}"
                for broker in await client.brokers()
                if broker.state == "registered" and broker.site in online
            }
            missing = wanted - there
        except HubUnreachableError:
            missing = wanted
        if missing and time.monotonic() > deadline:
            listed = ", ".join(sorted(missing))
            problem = Problem(
                code="wait_timed_out",
                message=f"not registered within {timeout_seconds:g} s: {listed}",
                actor=Actor.ENVIRONMENT,
                remedy="see the logs of these parts in the home's logs directory",
            )
            raise WaitTimedOutError(problem)
        if missing:
            await asyncio.sleep(_POLL_SECONDS)
