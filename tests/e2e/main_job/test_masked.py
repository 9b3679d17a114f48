"""A masked image on a whole stack: looked at before, saved, run elsewhere, with no original word left anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.main_job.conftest import Told
from tests.e2e.main_job.ways import command, must, refused
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

WORDS = ("Perpetuum mobile of Wilhelmine", "turns by the secret of a magnet", "Wilhelmine Quastenflosser")
RULES = """
ideas:
  unclassified: refuse
  columns:
    ideas.title: fake text
    ideas.text: redact
    ideas.author: fake name
    "*.*": keep
docs: {keep: true}
thumbs: {keep: true}
"""


@pytest.fixture
def rules(tmp_path: Path) -> str:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    return str(file)


async def test_a_masked_image_runs_elsewhere_and_holds_no_original_word(stack: Stack, told: Told, rules: str) -> None:
    title, text, author = WORDS
    idea = {"title": title, "text": text, "author": author, "document": "bm90aGluZw=="}
    async with (
        aiohttp.ClientSession(base_url=told.app["url"]) as session,
        session.post("/api/ideas", json=idea) as said,
    ):
        assert said.status < 300, await said.text()

    checked = (await must(stack, "mask", "check", "ideas", "--rules", rules, "-o", "json")).json
    assert checked["ideas"]["problems"] == []
    shown = await must(stack, "mask", "preview", "ideas", "--rules", rules, "--rows", "50")
    assert "REDACTED" in shown.stdout
    assert not [word for word in WORDS if word in shown.stdout + shown.stderr]
    before = await must(stack, "mask", "preview", "ideas", "--rules", rules, "--rows", "50", "--before")
    assert text in before.stdout

    image = (await must(stack, "save", "ideas", "--name", "masked", "--rules", rules, "-o", "json")).json
    assert image["masked"]
    parts = {part["data_service"]: part["masked"] for part in image["parts"]}
    assert parts["ideas"]["columns"] == 3
    assert len(parts["ideas"]["rules"]) == 64
    assert parts["docs"]["keep"]
    described = (await must(stack, "image", "describe", "masked")).stdout
    assert f"3 columns by {parts['ideas']['rules'][:12]}" in described
    assert not (await must(stack, "image", "describe", "first", "-o", "json")).json["masked"]

    copy = (await must(stack, "run", "masked", "--site", "south", "--name", "harmless", "-o", "json")).json
    async with aiohttp.ClientSession(base_url=copy["url"]) as session, session.get("/api/ideas") as answer:
        ideas = await answer.json()
    assert [idea for idea in ideas["ideas"] if idea["text"] == "REDACTED"]
    assert not [word for word in WORDS if word in str(ideas)]
    assert await asyncio.to_thread(_streams_with, stack.home, WORDS) == []
    await must(stack, "app", "delete", "harmless", "--yes")


async def test_a_masked_save_without_rules_for_every_data_service_is_refused(
    stack: Stack, told: Told, tmp_path: Path
) -> None:
    refused(
        await command(stack, "save", "ideas", "--name", "no-rules", "--masked"), 2, "no rule says how", "keep: true"
    )
    file = tmp_path / "some.yaml"
    file.write_text("docs:\n  columns: {a.b: hash}\nideas: {keep: true}\nthumbs: {keep: true}\n")
    refused(await command(stack, "save", "ideas", "--name", "no-rules", "--rules", str(file)), 5, "'s3'", "can't mask")


async def test_a_column_without_a_rule_fails_the_save_and_says_which(stack: Stack, told: Told, tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(RULES.replace('    "*.*": keep\n', "    ideas.id: keep\n"))
    checked = await command(stack, "mask", "check", "ideas", "--rules", str(file))
    assert checked.code == 1
    assert "no rule says what becomes of column ideas.votes" in checked.stderr
    ended = await command(stack, "save", "ideas", "--name", "open", "--rules", str(file))
    assert ended.code == 1
    assert "no rule says what becomes of column" in ended.stderr
    assert "ideas.ordinal: keep" in ended.stderr


def _streams_with(home: Path, words: tuple[str, ...]) -> list[str]:
    """The files of streams, logs and states (not of the data services themselves) that hold one of the words."""
    found = []
    for file in home.rglob("*"):
        place = file.relative_to(home).as_posix()
        if file.is_file() and "/postgres/" not in f"/{place}" and "/s3/" not in f"/{place}":
            try:
                content = file.read_bytes()
            except FileNotFoundError:
                continue
            found += [f"{word} in {place}" for word in words if word.encode() in content]
    return found
