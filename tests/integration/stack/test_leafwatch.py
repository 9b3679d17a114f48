"""A link that carries nothing any more, though the hub is there: the site's server is started anew, no other."""

from __future__ import annotations

import pytest

from hub.stack.leafwatch import LeafWatch, messages_from_hub
from tests.e2e.stack import until
from tests.servers import SITES, run_hub_and_sites

pytestmark = pytest.mark.full


async def test_a_site_that_lost_the_hub_for_long_is_started_anew_and_finds_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with run_hub_and_sites(tmp_path_factory.mktemp("leafwatch"), relayed=True) as servers:
        said: list[str] = []
        monitors = {site: servers.monitor_ports[site] for site in SITES}
        watch = LeafWatch(supervisor=servers.supervisor, monitors=monitors, say=said.append, patience_seconds=1.0)

        async def looked(*, connected: bool) -> bool:
            for site in SITES:
                await watch.look(site)
            return (await messages_from_hub(monitors["north"]) is not None) == connected

        await until(lambda: looked(connected=True), seconds=10, what="north reaches the hub")
        pids = {site: servers.supervisor.states[f"{site}-nats"].pid for site in SITES}
        await servers.relays["north"][0].cut()
        await until(lambda: looked(connected=False), seconds=10, what="north has lost the hub")

        async def again() -> bool:
            await looked(connected=False)
            return servers.supervisor.states["north-nats"].pid not in (None, pids["north"])

        await until(again, seconds=15, what="north's server is started anew")
        assert said[0].startswith("north-nats has no connection to the hub")
        assert servers.supervisor.states["south-nats"].pid == pids["south"]
        await servers.relays["north"][0].start()
        await until(lambda: looked(connected=True), seconds=10, what="north reaches the hub again")
