"""How many hubs and servers a home has: as said, else as before; a cluster is for a whole life."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.stack.errors import StackError
from hub.stack.hubs import Hubs, keep_hubs, known_hubs, wanted_hubs
from hub.stack.keys import open_keys
from hub.stack.layout import HomeLayout
from hub.stack.nats_parts import hub_nats_part, nats_ports, site_nats_part
from hub.stack.ports import Ports
from hub.stack.settings import client_context, hub_settings


def test_nothing_said_is_one_of_each(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    assert wanted_hubs(layout, hubs=None, servers=None) == Hubs(hubs=1, servers=1)
    keep_hubs(layout, Hubs())
    assert not layout.hubs.exists()


def test_what_was_said_is_remembered_and_hubs_may_change(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    keep_hubs(layout, wanted_hubs(layout, hubs=2, servers=3))
    assert wanted_hubs(layout, hubs=None, servers=None) == Hubs(hubs=2, servers=3)
    keep_hubs(layout, wanted_hubs(layout, hubs=1, servers=3))
    assert known_hubs(layout) == Hubs(hubs=1, servers=3)


@pytest.mark.parametrize(("hubs", "servers", "named"), [(0, 1, "hubs"), (9, 1, "hubs"), (1, 2, "cluster")])
def test_what_cannot_be_is_refused(tmp_path: Path, hubs: int, servers: int, named: str) -> None:
    with pytest.raises(StackError, match=named):
        wanted_hubs(HomeLayout(tmp_path), hubs=hubs, servers=servers)


def test_a_home_stays_with_the_servers_that_it_was_made_with(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    (layout.hub / "nats").mkdir(parents=True)
    with pytest.raises(StackError, match="made with 1"):
        wanted_hubs(layout, hubs=2, servers=3)
    assert wanted_hubs(layout, hubs=2, servers=None) == Hubs(hubs=2, servers=1)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    layout.hubs.write_text('{"hubs": 2}')
    with pytest.raises(StackError, match=r"hubs\.json"):
        known_hubs(layout)


async def test_servers_of_a_cluster_know_each_other_and_everybody_knows_all_of_them(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    keys = open_keys(layout.keys, sites=("north",))
    ports = nats_ports(Ports(layout.ports), sites=("north",), servers=3)
    parts = [hub_nats_part(layout, keys, ports, number=number) for number in (1, 2, 3)]
    parts.append(site_nats_part(layout, keys, ports, site="north"))
    for part in parts:
        assert part.prepare is not None
        await part.prepare()
    for own in ports.hubs:
        text = layout.server_config(own.name).read_text()
        others = [each for each in ports.hubs if each != own]
        assert all(f"tls://localhost:{each.cluster}" in text for each in others)
        assert f"tls://localhost:{own.cluster}" not in text
        assert str(keys.hub.routes_tls.ca) in text
        assert keys.hub.routes_tls.ca != keys.hub.leaf_tls.ca, "a site's certificate must not do for a server"
    names = {layout.server_config(each.name).read_text().split("server_name: ")[1].split()[0] for each in ports.hubs}
    assert names == {"hub", "hub_2", "hub_3"}
    assert all(f"tls://localhost:{each.leaf}" in layout.nats_config("north").read_text() for each in ports.hubs)
    bus = hub_settings(layout, keys, ports, name="hub-2")["bus"]
    assert (bus["name"], bus["replicas"], bus["servers"]) == ("hub-2", 3, ports.hub_urls)
    context = client_context(ports, keys.hub.principals["admin"], principal="admin")
    assert context["servers"] == ports.hub_urls


def test_a_single_server_is_no_cluster(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    keys = open_keys(layout.keys)
    ports = nats_ports(Ports(layout.ports), sites=())
    assert "replicas" not in hub_settings(layout, keys, ports)["bus"]
    assert [each.cluster for each in ports.hubs] == [None]
