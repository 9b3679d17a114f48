"""The platform as a library, without bus and broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from brokers.process import platform as platforms
from brokers.process.layout import StateLayout
from brokers.process.leftovers import end_leftovers
from brokers.process.platform import ProcessPlatform
from schemas.problems import CalqueError
from tests.integration.process.apps import deploy_request, processes_of, spec


async def test_simultaneous_deploys_start_one_process(app: Path, tmp_path: Path) -> None:
    layout = StateLayout(tmp_path / "state")
    platform = ProcessPlatform(layout)
    await platform.open()
    try:
        deployed = await asyncio.gather(*(platform.deploy(deploy_request(spec(app))) for _ in range(3)))
        assert len({each.url for each in deployed}) == 1
        assert len(processes_of(layout.state_dir)) == 1
    finally:
        await platform.close(grace_seconds=2)
    assert processes_of(layout.state_dir) == []


async def test_a_state_directory_has_one_broker(app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = StateLayout(tmp_path / "state")
    platform = ProcessPlatform(layout)
    await platform.open()
    try:
        await platform.deploy(deploy_request(spec(app)))
        monkeypatch.setattr(platforms, "_LOCK_SECONDS", 0.1)
        with pytest.raises(CalqueError) as caught:
            await ProcessPlatform(layout).open()
        assert caught.value.problem.code == "in_use"
        await end_leftovers(layout)
        assert len(processes_of(layout.state_dir)) == 1, "it is not ours to end"
    finally:
        await platform.close(grace_seconds=2)
