"""A site that takes masked images only, started as a user starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.main_job.ways import command, must, refused
from tests.e2e.stack import running_stack

pytestmark = [pytest.mark.stack, pytest.mark.full, pytest.mark.xdist_group("masked-stack")]

RULES = 'ideas: {columns: {"ideas.author": fake name}}\ndocs: {keep: true}\nthumbs: {keep: true}\n'


async def test_an_unmasked_image_does_not_come_to_a_site_that_demands_masked_ones(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    async with running_stack(tmp_path / "home", options=("--images", "south=masked")) as stack:
        await stack.must("template", "apply", "calque.yaml")
        await must(stack, "deploy", "hackathon", "--site", "north", "--name", "ideas")
        await must(stack, "save", "ideas", "--name", "plain")
        await must(stack, "save", "ideas", "--name", "masked", "--rules", str(rules))
        said = ("south takes masked images only", "is unmasked", "--masked")
        refused(await command(stack, "run", "plain", "--site", "south", "--name", "copy"), 5, *said)
        refused(await command(stack, "image", "transfer", "plain", "--to", "south"), 5, *said)
        assert "masked images only" in (await must(stack, "site", "describe", "south")).stdout
        await must(stack, "run", "masked", "--site", "south", "--name", "copy")
        await must(stack, "run", "plain", "--site", "north", "--name", "another")
