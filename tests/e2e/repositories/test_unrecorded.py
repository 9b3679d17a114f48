"""Repositories are a source of truth: what lies in one comes into the catalog, and goes from it when it is gone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hub.stack.layout import HomeLayout
from tests.e2e.main_job.ways import must
from tests.e2e.stack import Stack, running_stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack"), pytest.mark.full]

NOTICED_SECONDS = 60.0


async def images(stack: Stack) -> dict[str, Mapping[str, Any]]:
    return {image["id"]: image for image in (await must(stack, "image", "list", "-o", "json")).json}


async def test_a_site_that_lost_its_record_gets_its_images_back_from_its_repositories(
    twofold: Stack, kept: Mapping[str, Any]
) -> None:
    await must(twofold, "app", "delete", "ideas", "--yes")
    assert await twofold.stop() == 0
    shutil.rmtree(twofold.home / "sites" / "north" / "nats")
    await twofold.start()

    async def runs() -> bool:
        lost = await twofold.cli("run", "kept", "--site", "north", "--name", "back", "-o", "json")
        return lost.code == 0

    await until(runs, seconds=NOTICED_SECONDS, what="the image runs again at north", every_seconds=1.0)
    scanned = (await must(twofold, "repository", "scan", "north/vault", "-o", "json")).json
    assert {one["status"] for one in scanned["images"]} == {"known"}
    await must(twofold, "app", "delete", "back", "--yes")


async def test_a_hub_and_sites_that_lost_all_records_get_the_images_back(
    twofold: Stack, kept: Mapping[str, Any]
) -> None:
    assert await twofold.stop() == 0
    for place in ("hub", "sites/north", "sites/south"):
        shutil.rmtree(twofold.home / place / "nats")
    await twofold.start()

    async def back() -> bool:
        return kept["id"] in await images(twofold)

    await until(back, seconds=NOTICED_SECONDS, what="the image is in the catalog again", every_seconds=1.0)
    found = (await images(twofold))[kept["id"]]
    assert (found["origin"], found["found_in"]) == ("found", "north/vault")
    assert found["name"].startswith("ideas-")

    async def runs() -> bool:
        """Brokers are on no record either, until they are found."""
        run = await twofold.cli("run", found["name"], "--site", "south", "--name", "anew", "-o", "json")
        return run.code == 0 and run.json["state"] == "running"

    await until(runs, seconds=NOTICED_SECONDS, what="the image runs at south", every_seconds=1.0)
    await must(twofold, "app", "delete", "anew", "--yes")


async def test_a_repository_found_on_a_disk_is_taken_when_its_signer_is_trusted_and_lost_copies_are_noticed(
    twofold: Stack, kept: Mapping[str, Any], tmp_path: Path
) -> None:
    for name in list(await images(twofold)):
        await must(twofold, "image", "transfer", name, "--to", "south")
    home, disk = tmp_path / "home", tmp_path / "disk"
    there, here = HomeLayout(twofold.home), HomeLayout(home)
    shutil.copytree(there.repository("south"), disk)
    key = there.state("south", "crb-filesystem") / "recipient.key"
    if key.exists():  # what is encrypted comes with its key, or not at all
        here.state("north", "crb-disk").mkdir(parents=True)
        shutil.copy(key, here.state("north", "crb-disk"))
    attached = ("--repository", "north=filesystem", "--repository", f"north=disk:{disk}")
    async with running_stack(home, sites=("north",), options=attached) as stranger:
        assert await images(stranger) == {}
        [scanned] = (await must(stranger, "repository", "scan", "north/disk", "-o", "json")).json["images"]
        assert (scanned["image"], scanned["status"]) == (kept["id"], "untrusted")
        told = await must(stranger, "repository", "import", "north/disk")
        assert f"--trust {scanned['signer']}" in told.stderr
        assert await images(stranger) == {}
        trusting = ("repository", "import", "disk", "--trust", scanned["signer"], "-o", "json")
        [taken] = (await must(stranger, *trusting)).json
        assert (taken["id"], taken["origin"]) == (kept["id"], "found")
        assert taken["name"].startswith("ideas-")
        assert (await must(stranger, *trusting)).json == []
        run = await must(stranger, "run", taken["name"], "--site", "north", "--name", "ideas", "-o", "json")
        assert run.json["state"] == "running"

        assert await stranger.stop() == 0
        shutil.rmtree(disk / "copies")
        await stranger.start()

        async def lost() -> bool:
            return not (await images(stranger))[kept["id"]].get("sites")

        await until(lost, seconds=NOTICED_SECONDS, what="the copies are known to be gone", every_seconds=1.0)
