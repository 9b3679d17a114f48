"""Platform brokers: hooks that run to their end, over HTTP and as commands."""

from __future__ import annotations

from brokers.testkit.checks import check, holds
from brokers.testkit.psb_bench import PsbBench
from schemas.brokers import HookRan
from schemas.problems import Actor

SPEC = "schemas/brokers, RunHook and HookRan"
WORD = "sesame-in-the-hook"


@check("psb.run_hook.called", "A hook over HTTP reaches the service, which is told the phase.", spec=SPEC)
async def run_hook_called(bench: PsbBench) -> None:
    await bench.can_call("run")
    url = await bench.deploy()
    await bench.talk.run("run_hook", bench.run_hook_request("before_copy", http="POST /announce"), HookRan)
    called = (await bench.about(url)).called
    holds([path for path, _ in called] == ["/announce"], f"called was {called}")
    body = called[0][1]
    holds(isinstance(body, dict) and body.get("phase") == "before_copy", f"the body was {body}")


@check("psb.run_hook.repeated", "The same hook request again does not run the hook again.", spec=SPEC)
async def run_hook_repeated(bench: PsbBench) -> None:
    await bench.can_call("run")
    url = await bench.deploy()
    request = bench.run_hook_request("after_copy", http="POST /announce")
    await bench.talk.run("run_hook", request, HookRan)
    await bench.talk.run("run_hook", request, HookRan)
    called = (await bench.about(url)).called
    holds(len(called) == 1, f"called was {called}")


@check("psb.run_hook.unknown", "A hook of what is not there is not_found.", spec=SPEC)
async def run_hook_unknown(bench: PsbBench) -> None:
    await bench.can_call("run")
    await bench.talk.refuses("run_hook", bench.run_hook_request("before_copy", http="POST /announce"), "not_found")


@check("psb.exec.ran", "A command runs in the environment of the service, and knows which hook it is.", spec=SPEC)
async def exec_ran(bench: PsbBench) -> None:
    await bench.can_call("exec")
    await bench.deploy(bench.deploy_request(environment={"CONFORM_WORD": WORD}))
    ran = await bench.talk.run("run_hook", bench.run_hook_request("after_restore", command="tell"), HookRan)
    holds(f"after_restore {WORD}" in ran.output, f"the output was {ran.output!r}")


@check("psb.exec.failed", "A command that fails is a permanent problem with the end of its output.", spec=SPEC)
async def exec_failed(bench: PsbBench) -> None:
    await bench.can_call("exec")
    await bench.deploy(bench.deploy_request(environment={"CONFORM_WORD": WORD}))
    request = bench.run_hook_request("before_copy", command="fail")
    problem = await bench.talk.refuses("run_hook", request, "hook_failed", field="before_copy")
    holds(problem.actor is not Actor.ENVIRONMENT, "the problem says that it will pass by itself")
    holds(WORD in problem.message, f"the output is not in the problem: {problem.message}")


@check("psb.exec.secrets", "What a command prints of secrets is masked.", spec=SPEC)
async def exec_secrets(bench: PsbBench) -> None:
    await bench.can_call("exec")
    await bench.deploy(bench.deploy_request(secrets={"CONFORM_WORD": WORD}))
    problem = await bench.talk.refuses("run_hook", bench.run_hook_request("before_copy", command="fail"), "hook_failed")
    holds(WORD not in problem.sentence(), "the problem tells a secret")
    ran = await bench.talk.run("run_hook", bench.run_hook_request("after_restore", command="tell"), HookRan)
    holds(WORD not in ran.output, "the output tells a secret")


@check("psb.exec.timeout", "A command that takes too long is ended.", spec=SPEC)
async def exec_timeout(bench: PsbBench) -> None:
    await bench.can_call("exec")
    await bench.deploy()
    request = bench.run_hook_request("before_copy", command="linger", timeout_seconds=0.3)
    await bench.talk.refuses("run_hook", request, "hook_timeout")


@check("psb.exec.task", "A command can run before its service is there, and leaves nothing.", spec=SPEC)
async def exec_task(bench: PsbBench) -> None:
    await bench.can_call("task")
    deployment = bench.deploy_request(environment={"CONFORM_WORD": WORD})
    request = bench.run_hook_request("before_restore", command="tell", task=deployment)
    ran = await bench.talk.run("run_hook", request, HookRan)
    holds(f"before_restore {WORD}" in ran.output, f"the output was {ran.output!r}")
    holds(not await bench.describe(), "describe shows a service that was never deployed")
