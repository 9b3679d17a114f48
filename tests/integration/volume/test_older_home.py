"""A stack whose home was made before there were volumes."""

from __future__ import annotations

from pathlib import Path

from hub.stack.embedded import EmbeddedStack

NATS = ("hub-nats", "north-nats")


async def test_a_home_of_before_there_were_volumes_starts_with_them(tmp_path: Path) -> None:
    async with EmbeddedStack(tmp_path, sites=("north",), parts=NATS) as stack:
        brokers = stack.keys.sites["north"].brokers
        others = {name: key.public for name, key in brokers.items() if name != "dsb-volume"}
    brokers["dsb-volume"].seed_file.unlink()
    async with EmbeddedStack(tmp_path, sites=("north",), parts=(*NATS, "north-dsb-volume")) as again:
        assert again.states["north-dsb-volume"].phase == "ready"
        assert (again.layout.volumes("north") / "trees").is_dir()
        kept = again.keys.sites["north"].brokers
        assert {name: kept[name].public for name in others} == others
