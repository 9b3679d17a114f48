"""Platform brokers: holding a service still, by pause and by hooks."""

from __future__ import annotations

from brokers.testkit.checks import check, holds
from brokers.testkit.psb_bench import PsbBench
from schemas.brokers import Held
from schemas.ids import new_id
from schemas.problems import Actor

PAUSE = "schemas/brokers, PauseService and ResumeService"
HOOK = "schemas/brokers, ExecHook and Held"
DEADLINE_SECONDS = 0.6


@check("psb.pause.holds", "A paused service does nothing until it is resumed, and resume says it was held.", spec=PAUSE)
async def pause_holds(bench: PsbBench) -> None:
    await bench.can_pause()
    url = await bench.deploy()
    pause = bench.pause_request()
    said = await bench.talk.ask("pause", pause, Held)
    holds(said.held, f"pause says that it is not held: {said.message}")
    holds(not await bench.answers(url), "it answers while it is paused")
    holds((await bench.status_of()).paused, "describe does not say paused")
    resumed = await bench.talk.ask("resume", bench.resume_request(pause.id), Held)
    holds(resumed.held, f"resume says that it was not held: {resumed.message}")
    await bench.must_answer(url, "it does not answer after resume")


@check("psb.pause.repeated", "The same pause and the same resume again have the same answers.", spec=PAUSE)
async def pause_repeated(bench: PsbBench) -> None:
    await bench.can_pause()
    await bench.deploy()
    pause = bench.pause_request()
    first = await bench.talk.ask("pause", pause, Held)
    again = await bench.talk.ask("pause", pause, Held)
    holds(first.held and again.held, f"first {first}, then {again}")
    resume = bench.resume_request(pause.id)
    first = await bench.talk.ask("resume", resume, Held)
    again = await bench.talk.ask("resume", resume, Held)
    holds(first == again, f"resume: first {first}, then {again}")


@check("psb.pause.deadline", "At its deadline a paused service goes on by itself.", spec=PAUSE)
async def pause_deadline(bench: PsbBench) -> None:
    await bench.can_pause()
    url = await bench.deploy()
    await bench.talk.ask("pause", bench.pause_request(deadline_seconds=DEADLINE_SECONDS), Held)
    await bench.must_answer(url, f"it does not go on, its deadline was {DEADLINE_SECONDS} s")


@check("psb.pause.broken", "A resume after the deadline says that the hold was broken.", spec=HOOK)
async def pause_broken(bench: PsbBench) -> None:
    await bench.can_pause()
    url = await bench.deploy()
    pause = bench.pause_request(deadline_seconds=DEADLINE_SECONDS)
    await bench.talk.ask("pause", pause, Held)
    await bench.must_answer(url, f"it does not go on, its deadline was {DEADLINE_SECONDS} s")
    said = await bench.talk.ask("resume", bench.resume_request(pause.id), Held)
    holds(not said.held, "it says that the service was held all the time")


@check("psb.pause.unknown", "Pausing what is not there is not_found.", spec=PAUSE)
async def pause_unknown(bench: PsbBench) -> None:
    await bench.can_pause()
    await bench.talk.refuses("pause", bench.pause_request(service="nobody"), "not_found")


@check("psb.resume.not_paused", "Resuming what is not paused, or not there, is done.", spec=PAUSE)
async def resume_not_paused(bench: PsbBench) -> None:
    await bench.deploy()
    for request in (bench.resume_request(), bench.resume_request(new_id()), bench.resume_request(service="nobody")):
        said = await bench.talk.ask("resume", request, Held)
        holds(not said.held, "it says that the service was held")


@check("psb.hook.called", "A hook reaches the service, with its deadline; thaw says that it was held.", spec=HOOK)
async def hook_called(bench: PsbBench) -> None:
    url, operation = await bench.deploy(), new_id()
    said = await bench.talk.ask("exec_hook", bench.hook_request("quiesce", operation=operation), Held)
    holds(said.held, f"quiesce says that it is not held: {said.message}")
    thawed = await bench.talk.ask("exec_hook", bench.hook_request("thaw", operation=operation), Held)
    holds(thawed.held, f"thaw says that it was not held: {thawed.message}")
    called = (await bench.about(url)).called
    holds([path for path, _ in called] == ["/quiesce", "/thaw"], f"called was {called}")
    body = called[0][1]
    holds(isinstance(body, dict) and body.get("deadline_seconds"), f"the body of quiesce was {body}")


@check("psb.hook.repeated", "The same hook request again calls the service once.", spec=HOOK)
async def hook_repeated(bench: PsbBench) -> None:
    url = await bench.deploy()
    request = bench.hook_request("quiesce", operation=new_id())
    await bench.talk.ask("exec_hook", request, Held)
    await bench.talk.ask("exec_hook", request, Held)
    called = (await bench.about(url)).called
    holds(len(called) == 1, f"called was {called}")


@check("psb.hook.refused", "A hook that the service refuses is a permanent problem that names it.", spec=HOOK)
async def hook_refused(bench: PsbBench) -> None:
    await bench.deploy()
    request = bench.hook_request("quiesce", operation=new_id(), path="/refuse")
    problem = await bench.talk.refuses("exec_hook", request, field="quiesce")
    holds(problem.actor is not Actor.ENVIRONMENT, f"the problem {problem.code} says that it will pass by itself")


@check("psb.hook.broken", "A thaw without a quiesce says that nothing was held.", spec=HOOK)
async def hook_broken(bench: PsbBench) -> None:
    await bench.deploy()
    said = await bench.talk.ask("exec_hook", bench.hook_request("thaw", operation=new_id()), Held)
    holds(not said.held, "it says that the service was held")


@check("psb.hook.unknown", "A hook of what is not there is not_found.", spec=HOOK)
async def hook_unknown(bench: PsbBench) -> None:
    await bench.talk.refuses("exec_hook", bench.hook_request("quiesce", operation=new_id()), "not_found")
