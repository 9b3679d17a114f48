"""Long operations: idempotence by id, duplicates, new attempts, cancel. For every kind."""

from __future__ import annotations

import asyncio

import msgspec

from brokers.testkit.bench import Bench
from brokers.testkit.checks import check, holds
from brokers.testkit.conversation import renewed
from schemas.brokers import Outcome, StatusRequest
from schemas.ids import new_id

IDEMPOTENT = "design, section 5: every operation is idempotent by the id it is given"
CANCEL = "schemas/brokers, CancelRequest; design, section 5"
STATUS = "schemas/brokers, StatusRequest"
DUPLICATES = 10


def same(first: Outcome, second: Outcome) -> bool:
    """Whether both say the same end."""
    return (first.state, bytes(first.result), first.problem) == (second.state, bytes(second.result), second.problem)


@check("any.status.unknown", "The status of an unknown id is the problem not_found, naming id.", spec=STATUS)
async def status_unknown(bench: Bench) -> None:
    await bench.talk.refuses("status", StatusRequest(id=new_id()), "not_found", field="id")


@check("any.status.finished", "status repeats the outcome of a finished operation, its result too.", spec=STATUS)
async def status_finished(bench: Bench) -> None:
    operation, request = await bench.operation()
    outcome = await bench.talk.finish(operation, request)
    bench.talk.succeeded(operation, outcome, bench.result_of(operation))
    again = await bench.talk.status(request.id)
    bench.talk.succeeded("status", again, bench.result_of(operation))
    holds(same(outcome, again), "two questions for the status have two answers")


@check("any.repeat.answer", "The same request again, after its end, has the same answer.", spec=IDEMPOTENT)
async def repeat_answer(bench: Bench) -> None:
    operation, request = await bench.operation()
    first = await bench.talk.finish(operation, request)
    bench.talk.succeeded(operation, first, bench.result_of(operation))
    for _ in range(2):
        again = await bench.talk.begin(operation, request)
        holds(same(first, again), f"first {first.state}, again {again.state} with another result or problem")


@check("any.repeat.effect", "The same request again has no second effect.", spec=IDEMPOTENT)
async def repeat_effect(bench: Bench) -> None:
    operation, request = await bench.operation()
    await bench.talk.run(operation, request, bench.result_of(operation))
    before = await bench.traces(request)
    holds(before, f"{operation} succeeded and describe or list shows nothing of it")
    await bench.talk.finish(operation, request)
    after = await bench.traces(request)
    holds(sorted(before) == sorted(after), f"before {before}, after the repeat {after}")


@check(
    "any.repeat.concurrent",
    "The same request many times at once: each gets an outcome, and there is one effect.",
    spec=IDEMPOTENT,
)
async def repeat_concurrent(bench: Bench) -> None:
    operation, request = await bench.operation()
    outcomes = await asyncio.gather(*(bench.talk.begin(operation, request) for _ in range(DUPLICATES)))
    final = await bench.talk.ended(request.id)
    bench.talk.succeeded(operation, final, bench.result_of(operation))
    odd = [each.state for each in outcomes if each.state not in ("running", "succeeded")]
    holds(not odd, f"duplicates were answered {', '.join(odd)}")
    traces = await bench.traces(request)
    holds(len(traces) == len(set(traces)), f"more than one effect: {traces}")


@check(
    "any.repeat.attempt",
    "Another attempt, with an id of its own, at what is there already succeeds with the same result.",
    spec="design, section 3: an effect's id is <operation>/<step>/<attempt>",
)
async def repeat_attempt(bench: Bench) -> None:
    operation, request = await bench.operation()
    first = await bench.talk.run(operation, request, bench.result_of(operation))
    again = await bench.talk.run(operation, renewed(request), bench.result_of(operation))
    holds(first == again, f"first {first}, then {again}")


@check("any.id.slashes", "Ids may hold slashes: they are <operation>/<step>/<attempt>.", spec="design, section 3")
async def id_slashes(bench: Bench) -> None:
    operation, request = await bench.operation()
    named = msgspec.structs.replace(request, id=f"{new_id()}/conform.part/1")
    await bench.talk.run(operation, named, bench.result_of(operation))
    await bench.talk.status(named.id)


@check(
    "any.id.other_operation", "The id of one operation is refused for another: conflict, naming id.", spec=IDEMPOTENT
)
async def id_other_operation(bench: Bench) -> None:
    operation, request = await bench.operation()
    await bench.talk.run(operation, request, bench.result_of(operation))
    other, second = bench.other(request.id)
    await bench.talk.refuses(other, second, "conflict", field="id")


# --- while it runs


@check("any.running.status", "status of an operation that goes on is running.", spec=STATUS)
async def running_status(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    outcome = await bench.talk.status(request.id)
    holds(outcome.state == "running", f"the status is {outcome.state}")
    await bench.talk.cancel(request.id)


@check("any.running.joined", "The same request while it runs joins it.", spec=IDEMPOTENT)
async def running_joined(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    again = await bench.talk.begin(operation, request)
    holds(again.state == "running", f"the second is answered {again.state}")
    await bench.talk.cancel(request.id)


@check(
    "any.running.others",
    "While one operation runs, others begin and end.",
    spec="schemas/brokers: long operations answer at once",
)
async def running_others(bench: Bench) -> None:
    stalled, blocked = await bench.stalled()
    await bench.running(stalled, blocked)
    operation, request = await bench.relieved((await bench.stalled())[1])
    await bench.talk.run(operation, request, bench.result_of(operation))
    await bench.talk.cancel(blocked.id)


# --- cancel


@check("any.cancel.running", "cancel stops what runs, and what it made is gone.", spec=CANCEL)
async def cancel_running(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    await bench.under_way(request)
    await bench.talk.cancel(request.id)
    outcome = await bench.talk.ended(request.id)
    holds(outcome.state == "cancelled", f"it {outcome.state}")

    async def gone() -> bool:
        return not await bench.traces(request)

    await bench.until(gone, "what the cancelled operation made is still there")


@check("any.cancel.answer", "cancel and the status after it say cancelled.", spec=CANCEL)
async def cancel_answer(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    outcome = await bench.talk.cancel(request.id)
    holds(outcome.state in ("cancelled", "running"), f"cancel answers {outcome.state}")
    after = await bench.talk.ended(request.id)
    holds(after.state == "cancelled", f"the status is {after.state}")


@check("any.cancel.repeated", "cancel again has the same answer.", spec=CANCEL)
async def cancel_repeated(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    await asyncio.gather(bench.talk.cancel(request.id), bench.talk.cancel(request.id))
    await bench.talk.ended(request.id)
    again = await bench.talk.cancel(request.id)
    holds(again.state == "cancelled", f"the second cancel answers {again.state}")


@check("any.cancel.start_again", "A cancelled operation does not begin again by its id.", spec=CANCEL)
async def cancel_start_again(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    await bench.talk.cancel(request.id)
    await bench.talk.ended(request.id)
    again = await bench.talk.begin(operation, request)
    holds(again.state == "cancelled", f"the request is answered {again.state}")


@check("any.cancel.new_attempt", "After a cancel, another attempt at the same thing succeeds.", spec=CANCEL)
async def cancel_new_attempt(bench: Bench) -> None:
    operation, request = await bench.stalled()
    await bench.running(operation, request)
    await bench.talk.cancel(request.id)
    await bench.talk.ended(request.id)
    operation, attempt = await bench.relieved(request)
    await bench.talk.run(operation, attempt, bench.result_of(operation))


@check("any.cancel.finished", "cancel of a finished operation changes nothing.", spec=CANCEL)
async def cancel_finished(bench: Bench) -> None:
    operation, request = await bench.operation()
    await bench.talk.run(operation, request, bench.result_of(operation))
    before = await bench.traces(request)
    outcome = await bench.talk.cancel(request.id)
    holds(outcome.state == "succeeded", f"cancel answers {outcome.state}")
    after = await bench.traces(request)
    holds(before == after, f"before {before}, after the cancel {after}")


@check("any.cancel.unknown", "An unknown id is remembered as cancelled.", spec=CANCEL)
async def cancel_unknown(bench: Bench) -> None:
    id = new_id()
    outcome = await bench.talk.cancel(id)
    holds(outcome.state == "cancelled", f"cancel answers {outcome.state}")
    status = await bench.talk.status(id)
    holds(status.state == "cancelled", f"the status is {status.state}")


@check("any.cancel.before_start", "A request that comes after its cancel does nothing.", spec=CANCEL)
async def cancel_before_start(bench: Bench) -> None:
    operation, request = await bench.operation()
    await bench.talk.cancel(request.id)
    outcome = await bench.talk.finish(operation, request)
    holds(outcome.state == "cancelled", f"the request is answered {outcome.state}")
    traces = await bench.traces(request)
    holds(not traces, f"it has had an effect: {traces}")
