"""A site is given secrets: only the site gets to see them, and everybody sees who gave it what."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bus.connection import Bus
from bus.settings import BusSection
from hub.client import NotFoundError, RefusedError
from hub.client.context import load_context
from schemas import subjects
from schemas.ids import new_id
from schemas.problems import CalqueError
from schemas.secrets import Sealed, Secret
from schemas.site_secrets import SecretChanged, SetSecret
from tests.e2e.main_job.command_lines import watched_command_lines
from tests.e2e.main_job.test_no_secret_leaks import _forms, _in_files, _within
from tests.e2e.main_job.ways import must
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

VALUE = "correct-horse-battery-staple-9"


async def test_a_secret_is_set_listed_and_removed_and_never_seen(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text(f"{VALUE}\n")
    with watched_command_lines() as lines:
        set_ = await must(stack, "secret", "set", "prod-db", "--site", "north", "--from-file", str(file), "-o", "json")
        again = await must(stack, "secret", "set", "prod-db", "--site", "north", "--from-file", str(file))
    assert set_.json == {"site": "north", "name": "prod-db", "version": 1}
    assert "version 2" in again.stdout
    listed = (await must(stack, "secret", "list", "--site", "north", "-o", "json")).json
    assert {each["name"]: (each["version"], each["set_by"]) for each in listed}["prod-db"] == (2, "admin")
    events = await must(stack, "events")
    assert "secret" in events.stdout
    leaks = await asyncio.to_thread(_in_files, stack.home, {"the value": _forms(VALUE)})
    assert leaks == []
    assert not any(_within(line, _forms(VALUE)) for line in lines.seen)
    assert not _within((set_.stdout + set_.stderr + events.stdout).encode(), _forms(VALUE))

    assert (await stack.cli("secret", "remove", "prod-db", "--site", "north")).code == 2
    await must(stack, "secret", "remove", "prod-db", "--site", "north", "--yes")
    left = (await must(stack, "secret", "list", "-o", "json")).json
    assert "prod-db" not in {each["name"] for each in left}
    assert (await stack.cli("secret", "remove", "prod-db", "--site", "north", "--yes")).code == 3


async def test_what_can_t_be_set_says_why(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"\xff\xfe")
    assert (await stack.cli("secret", "set", "x", "--site", "north", "--from-file", str(file))).code == 2
    file.write_text("\n")
    empty = await stack.cli("secret", "set", "x", "--site", "north", "--from-file", str(file))
    assert empty.code == 2
    assert "0 bytes" in empty.stderr
    async with await stack.client() as client:
        with pytest.raises(NotFoundError, match="nowhere"):
            await client.set_secret("x", Secret(value="v"), site="nowhere")


async def test_the_same_request_again_sets_once_and_another_box_is_refused(stack: Stack) -> None:
    command = new_id()
    async with await stack.client() as client:
        first = await client.set_secret("twice", Secret(value="v"), site="north", command=command)
        second = await client.set_secret("twice", Secret(value="other"), site="north", command=command)
        assert first == second
        sealed = Sealed(recipient="00" * 32, box=b"nothing of this can be opened by anybody " * 3)
        wrong = SetSecret(id=new_id(), site="north", name="x", sealed=sealed)
        try:
            with pytest.raises(RefusedError) as caught:
                await client._act("secret_set", wrong, SecretChanged)  # what a faulty client sends
            assert caught.value.problem.code == "not_for_us"
        finally:
            await client.remove_secret("twice", site="north")


async def test_nobody_sets_a_secret_under_another_name(stack: Stack) -> None:
    context = load_context(stack.home)
    settings = BusSection(servers=list(context.servers), nkey_seed_file=context.nkey_seed_file, name="liar")
    bus = await Bus.connect(settings.connection(), deadline_seconds=60)
    try:
        subject = subjects.act(principal="somebody-else", what="secret_set")
        data = SetSecret(id=new_id(), site="north", name="x", sealed=Sealed(recipient="", box=b""))
        with pytest.raises(CalqueError) as caught:
            await bus.ask(subject, data, SecretChanged, source="somebody-else", timeout_seconds=1.0)
        assert caught.value.problem.code == "forbidden"
    finally:
        await bus.close()
    recorded = json.dumps((await must(stack, "events", "-o", "json")).stdout)
    assert "somebody-else" not in recorded
