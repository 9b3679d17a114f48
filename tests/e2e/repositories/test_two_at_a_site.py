"""A site with two copy repositories: saved where it is said, copied between them, read from either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.main_job.ways import command, held, must, refused
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.full, pytest.mark.stack, pytest.mark.xdist_group("stack")]


def places(image: Mapping[str, Any]) -> set[str]:
    """Where its copies lie; all of them lie in the same places."""
    found = {tuple(part["locations"]) for part in image["parts"]}
    assert len(found) == 1, found
    return set(found.pop())


async def test_a_save_goes_into_the_repository_that_is_named(twofold: Stack, kept: Mapping[str, Any]) -> None:
    assert places(kept) == {"north/vault"}
    refused(
        await command(twofold, "save", "ideas", "--name", "never", "--repository", "cellar"),
        3,
        "repository",
        "'cellar'",
        "filesystem, vault",
    )
    names = [image["name"] for image in (await must(twofold, "image", "list", "-o", "json")).json]
    assert "never" not in names


async def test_repositories_are_listed_and_described(twofold: Stack, kept: Mapping[str, Any]) -> None:
    listed = {
        (each["site"], each["name"]): each for each in (await must(twofold, "repository", "list", "-o", "json")).json
    }
    assert set(listed) == {("north", "filesystem"), ("north", "vault"), ("south", "filesystem")}
    assert "kept" in listed["north", "vault"]["images"]
    assert listed["north", "vault"]["copies"] >= len(kept["parts"])
    assert len({each["signing_key"] for each in listed.values()}) == 3
    described = (await must(twofold, "repository", "describe", "north/vault", "-o", "json")).json
    assert described["now"]["healthy"]
    assert described["now"]["copies"] == described["repository"]["copies"]
    refused(await command(twofold, "repository", "describe", "filesystem"), 5, "north/filesystem", "south/filesystem")
    refused(await command(twofold, "repository", "describe", "north/s3"), 3, "north/vault")
    scanned = await must(twofold, "repository", "scan", "north/vault")
    assert "known" in scanned.stdout
    assert kept["id"] in scanned.stdout
    sound = await must(twofold, "repository", "verify", "north/vault")
    assert "sound" in sound.stdout
    cleared = await must(twofold, "repository", "collect", "north/vault", "-o", "json")
    assert cleared.json["repository"] == "north/vault"


async def test_an_image_is_copied_between_repositories_read_from_either_and_deleted_from_both(
    twofold: Stack, kept: Mapping[str, Any]
) -> None:
    saved = await must(twofold, "save", "ideas", "--name", "both", "--repository", "vault", "-o", "json")
    there = await must(
        twofold, "image", "transfer", "both", "--to", "north", "--repository", "filesystem", "-o", "json"
    )
    assert places(there.json) == {"north/filesystem", "north/vault"}
    with held(twofold, "north-crb-filesystem"):
        again = await must(twofold, "run", "both", "--site", "north", "--name", "again", "-o", "json")
    assert again.json["state"] == "running"
    await must(twofold, "app", "delete", "again", "--yes")
    await must(twofold, "image", "delete", "both", "--yes")
    for place in ("north/filesystem", "north/vault"):
        assert saved.json["id"] not in (await must(twofold, "repository", "scan", place, "-o", "json")).stdout


async def test_an_image_is_copied_to_another_site_ahead_of_its_use(twofold: Stack, kept: Mapping[str, Any]) -> None:
    there = await must(twofold, "image", "transfer", "kept", "--to", "south", "-o", "json")
    assert places(there.json) == {"north/vault", "south/filesystem"}
    run = await must(twofold, "run", "kept", "--site", "south", "--name", "copy", "-o", "json")
    assert run.json["state"] == "running"
    await must(twofold, "app", "delete", "copy", "--yes")
