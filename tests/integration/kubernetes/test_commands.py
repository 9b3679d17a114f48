"""Hooks that are commands, in the pods of a service and before it is there."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.brokers import DeployService, ExecHook, RunHook
from schemas.ids import new_id
from schemas.problems import CalqueError, Problem
from schemas.secrets import Secret
from schemas.values import Artifact, Hook
from tests.integration.kubernetes.conftest import INSTANCE, Platform, request_for

SECRET = "a-secret-of-the-test"
SAY = "import os; print(os.environ['CALQUE_HOOK'], os.environ.get('CALQUE_DEADLINE_SECONDS'), os.environ['PASS'])"


def request(**changes: Any) -> DeployService:
    return request_for(secret_environment={"PASS": Secret(value=SECRET)}, **changes)


def command(code: str, *, task: DeployService | None = None, seconds: float = 20.0) -> RunHook:
    hook = Hook(exec=("python", "-c", code), timeout_seconds=seconds)
    phase: Any = "before_restore" if task is not None else "before_copy"
    return RunHook(id=new_id(), instance=INSTANCE, service="web", phase=phase, hook=hook, task=task)


async def fails(platform: Platform, request: RunHook) -> Problem:
    with pytest.raises(CalqueError) as failed:
        await platform.hooks.run(request)
    return failed.value.problem


async def test_a_command_runs_in_the_pod_and_its_secrets_are_masked(platform: Platform) -> None:
    await platform.deploy(request())
    assert (await platform.hooks.run(command(SAY))).output.strip() == "before_copy None ***"
    problem = await fails(platform, command(f"{SAY}; exit(3)"))
    assert (problem.code, problem.temporary) == ("hook_failed", False)
    assert "exit code 3" in problem.message
    assert SECRET not in problem.message


async def test_a_command_that_holds_writers_is_told_for_how_long(platform: Platform) -> None:
    await platform.deploy(request())
    hook = Hook(exec=("python", "-c", f"{SAY}; assert os.environ['CALQUE_DEADLINE_SECONDS'] == '12.5'"))
    asked = ExecHook(
        id=new_id(), operation="o", instance=INSTANCE, service="web", phase="quiesce", hook=hook, deadline_seconds=12.5
    )
    assert (await platform.hooks.call(asked)).held


@pytest.mark.full
async def test_a_command_that_takes_too_long_is_ended(platform: Platform) -> None:
    await platform.deploy(request())
    problem = await fails(platform, command("import threading; threading.Event().wait(60)", seconds=0.5))
    assert (problem.code, problem.temporary) == ("hook_timeout", True)


async def test_a_command_before_its_service_is_there_leaves_nothing(platform: Platform) -> None:
    code = f"{SAY}; print(os.environ['COLOUR'])"
    ran = await platform.hooks.run(command(code, task=request(environment={"COLOUR": "red"})))
    assert ran.output.split() == ["before_restore", "None", "***", "red"]
    for plural in ("jobs", "pods", "secrets", "configmaps", "deployments", "services"):
        assert platform.of(plural) == [], plural


@pytest.mark.full
async def test_what_goes_wrong_before_the_service_is_there(platform: Platform) -> None:
    task = request()
    problem = await fails(platform, command("print('so sorry'); exit(7)", task=task))
    assert (problem.code, "so sorry" in problem.message) == ("hook_failed", True)
    problem = await fails(platform, command("import threading; threading.Event().wait(60)", task=task, seconds=0.5))
    assert problem.code == "hook_timeout"
    missing = Artifact(type="image", image="registry.test/nobody:1")
    problem = await fails(platform, command("pass", task=request(artifact=missing)))
    assert problem.code == "image_pull"
    assert platform.of("jobs") + platform.of("pods") + platform.of("secrets") == []
