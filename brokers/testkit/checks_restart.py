"""The broker is restarted in the middle. For every kind; all these checks share one restart."""

from __future__ import annotations

from brokers.testkit.bench import Bench
from brokers.testkit.checks import check, holds
from brokers.testkit.checks_found import service
from brokers.testkit.checks_operations import same
from schemas.brokers import StatusRequest
from schemas.ids import new_id

SPEC = "schemas/brokers: the same request resumes the work, also after a restart of the broker"


@check("any.restart.found", "It is found again.", spec="NATS ADR-32, services API", restarts=True)
async def restart_found(bench: Bench) -> None:
    await service(bench)
    await bench.restart()
    await service(bench)


@check("any.restart.outcome", "Outcomes are kept: the same request has the same answer.", spec=SPEC, restarts=True)
async def restart_outcome(bench: Bench) -> None:
    operation, request = await bench.operation()
    before = await bench.talk.finish(operation, request)
    bench.talk.succeeded(operation, before, bench.result_of(operation))
    await bench.restart()
    after = await bench.talk.finish(operation, request)
    holds(same(before, after), f"before {before.state}, after {after.state} with another result or problem")


@check("any.restart.effect", "What was made is still there, and is found as ours.", spec=SPEC, restarts=True)
async def restart_effect(bench: Bench) -> None:
    operation, request = await bench.operation()
    await bench.talk.run(operation, request, bench.result_of(operation))
    before = await bench.traces(request)
    await bench.restart()

    async def there() -> bool:
        return sorted(await bench.traces(request)) == sorted(before)

    await bench.until(there, f"before the restart {before}, after it something else")


@check("any.restart.cancelled", "A cancel is remembered.", spec=SPEC, restarts=True)
async def restart_cancelled(bench: Bench) -> None:
    operation, request = await bench.operation()
    await bench.talk.cancel(request.id)
    await bench.restart()
    outcome = await bench.talk.finish(operation, request)
    holds(outcome.state == "cancelled", f"the request that was cancelled before the restart {outcome.state}")


@check("any.restart.unknown", "Nothing that was never asked for is known.", spec=SPEC, restarts=True)
async def restart_unknown(bench: Bench) -> None:
    await bench.restart()
    await bench.talk.refuses("status", StatusRequest(id=new_id()), "not_found", field="id")


@check("any.restart.running", "What was interrupted goes on when it is asked for again.", spec=SPEC, restarts=True)
async def restart_running(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    await bench.restart()
    outcome = await bench.talk.begin(operation, request)
    holds(outcome.state == "running", f"the request is answered {outcome.state}")
    await bench.talk.cancel(request.id)
    holds((await bench.talk.ended(request.id)).state == "cancelled", "it can't be cancelled after the restart")
