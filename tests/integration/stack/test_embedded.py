"""The servers of an embedded stack, started from a home, and what a home keeps."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import nats
import psycopg
import pytest

from hub.stack.embedded import EmbeddedStack
from hub.stack.errors import StackError
from hub.stack.ports import is_free

SERVERS = ("hub-nats", "north-nats", "north-postgres", "north-s3")


async def test_servers_come_up_together_and_again_with_their_data(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with EmbeddedStack(home, sites=("north",), parts=SERVERS) as stack:
        assert {name: state.phase for name, state in stack.states.items()} == dict.fromkeys(SERVERS, "ready")
        ports, public = stack.ports, stack.keys.hub.service.public
        context = json.loads(stack.layout.context.read_bytes())
        client = await nats.connect(context["servers"][0], nkeys_seed=context["nkey_seed_file"])
        await client.flush()
        await client.close()
        assert context["principal"] == "admin"
        with connect(stack) as connection:
            connection.execute("create table kept as select 42 as answer")
    every = [ports.nats.hubs[0].client, ports.nats.hubs[0].leaf, ports.postgres["north"], ports.s3["north"].s3]
    assert [port for port in every if not is_free(port)] == []
    async with EmbeddedStack(home, sites=("north", "east"), parts=(*SERVERS, "east-nats")) as again:
        assert again.ports.postgres["north"] == ports.postgres["north"]
        assert again.keys.hub.service.public == public
        assert again.states["east-nats"].phase == "ready"
        with connect(again) as connection:
            assert connection.execute("select answer from kept").fetchone() == (42,)


def connect(stack: EmbeddedStack) -> psycopg.Connection[tuple[object, ...]]:
    password = stack.layout.site("north") / "postgres" / "superuser.password"
    return psycopg.connect(
        host="127.0.0.1",
        port=stack.ports.postgres["north"],
        user="postgres",
        dbname="postgres",
        password=password.read_text().strip(),
    )


async def test_nothing_secret_is_open_to_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with EmbeddedStack(home, sites=("north",), parts=("hub-nats", "north-nats")):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        configuration = (home / "config" / "north-nats.conf").read_text()
        seed = (home / "keys" / "sites" / "north" / "leaf.nk").read_text().strip()
        assert seed not in configuration


def test_a_part_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path, sites=("north",), parts=("north-mysql",))
    with pytest.raises(StackError, match=r"no north-mysql; there are hub-nats, hub, webhooks, north-nats"):
        asyncio.run(stack.start())
