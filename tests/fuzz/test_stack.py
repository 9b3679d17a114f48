"""Hostile messages on every subject of a real stack: refused with a reason, counted, never a crash, nothing stuck."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.stack import Stack, running_stack, until
from tests.fuzz.attacker import Attacker, attacker, waiting

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("fuzz")]

SITE = "north"
MANY = range(100, 112)
SETTLED_SECONDS = 90.0
AT_HUB = (("JOBS", "jobs"), ("CMD", SITE), ("EVENTS", "sagas"), ("ADV", "letters"))
AT_SITE = (("JOBS", "jobs"), ("ADV", "letters"))
OURS = ("hub", f"{SITE}-agent", f"{SITE}-dsb-", f"{SITE}-psb-", f"{SITE}-crb-", "webhooks")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    home = tmp_path_factory.mktemp("fuzz") / "a" / "b" / "home"
    async with running_stack(home, sites=(SITE,)) as started:
        await started.must("template", "apply", "calque.yaml")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def foe(stack: Stack) -> AsyncIterator[Attacker]:
    async with attacker(stack.home, site=SITE) as connected:
        yield connected


def alive(stack: Stack) -> dict[str, tuple[int, int]]:
    return {name: (part["pid"], part["restarts"]) for name, part in stack.parts().items()}


def tracebacks(home: Path) -> list[str]:
    found = []
    for log in sorted((home / "logs").glob("*.log")):
        if log.name.startswith(OURS):
            text = log.read_text(errors="replace")
            found += [f"{log.name}: {part[:3000]}" for part in text.split("Traceback")[1:]]
    return found


async def unharmed(stack: Stack, foe: Attacker, before: dict[str, tuple[int, int]]) -> None:
    """Same processes, nothing stuck, no traceback, and a good command is carried out."""

    async def settled() -> bool:
        return not await waiting(foe.bus("hub"), AT_HUB) and not await waiting(foe.bus("agent"), AT_SITE)

    try:
        await until(settled, seconds=SETTLED_SECONDS, what="every consumer has nothing left")
    except AssertionError as late:
        left = {**await waiting(foe.bus("hub"), AT_HUB), **await waiting(foe.bus("agent"), AT_SITE)}
        raise AssertionError(f"{late}: {left}; {tracebacks(stack.home)[:2]}") from None
    assert alive(stack) == before, tracebacks(stack.home)[:3]
    assert tracebacks(stack.home) == []
    await stack.must("repository", "collect", f"{SITE}/filesystem", seconds=30)
    assert not list(stack.home.parents[3].rglob("passwd*")), "an id got out of its place"


async def test_hostile_messages_on_every_subject_harm_nothing(stack: Stack, foe: Attacker) -> None:
    before = alive(stack)
    await foe.attack(1, each=False)
    assert foe.silent == [], len(foe.silent)
    await unharmed(stack, foe, before)
    assert foe.outcomes["stored: stored"] > 50
    assert foe.outcomes["asked: problem"] > 30


@pytest.mark.full
async def test_they_are_counted_by_reason_and_shown(stack: Stack, foe: Attacker) -> None:
    letters = (await stack.must("dlq", "list", "-o", "json")).json
    assert {letter["site"] for letter in letters} == {"hub", SITE}
    assert {"invalid"} <= {letter["code"] for letter in letters}
    shown = await stack.must("dlq", "describe", letters[0]["id"])
    assert letters[0]["id"] in shown.stdout
    doctor = await stack.cli("doctor", "-o", "json")
    assert doctor.code == 1
    problems = {finding["check"] for finding in doctor.json["findings"] if finding["state"] == "problem"}
    assert {"letters", "strays"} <= problems
    ids = [letter["id"] for letter in letters]
    retried = await stack.cli("dlq", "retry", ids[0], ids[-1], "-o", "json")
    assert {each["state"] for each in retried.json["outcomes"]} <= {"sent", "handled", "kept"}
    assert (await stack.cli("dlq", "discard", ids[0])).code == 2, "off a terminal it has to be said"
    await stack.must("dlq", "discard", "--all", "--yes")

    async def none_left() -> bool:
        await stack.must("dlq", "discard", "--all", "--yes")
        return not (await stack.must("dlq", "list", "-o", "json")).json

    await until(none_left, seconds=20, what="no letter is left")
    assert (await stack.cli("dlq", "describe", ids[0])).code == 3


async def test_hub_and_agent_start_again_on_what_was_stored(stack: Stack, foe: Attacker) -> None:
    for part in ("hub", f"{SITE}-agent"):
        killed = stack.kill(part)

        async def back(part: str = part, killed: int = killed) -> bool:
            known = stack.parts()[part]
            return known["phase"] == "ready" and known["pid"] not in (None, killed)

        await until(back, seconds=30, what=f"{part} is back")
    await unharmed(stack, foe, alive(stack))


@pytest.mark.full
@pytest.mark.parametrize("seed", MANY)
async def test_every_way_to_spoil_on_every_subject(stack: Stack, foe: Attacker, seed: int) -> None:
    before = alive(stack)
    await foe.attack(seed, each=True)
    assert foe.silent == []
    await unharmed(stack, foe, before)
