"""Data service brokers: the moment of a copy, the copy, and what is restored from it."""

from __future__ import annotations

import asyncio

import msgspec

from brokers.testkit.bench import name_of
from brokers.testkit.checks import check, holds
from brokers.testkit.conversation import renewed
from brokers.testkit.dsb_bench import DsbBench
from schemas.brokers import Copied, DiscardCopy, Done, PrepareCopy, Prepared
from schemas.envelope import convert
from schemas.ids import new_id

PREPARE = "schemas/brokers, PrepareCopy; design, section 4, saving an image"
COPY = "schemas/brokers, CopyData and Copied"
DISCARD = "schemas/brokers, DiscardCopy"
RESTORE = "schemas/brokers, Provision with restore"
HOLD_SECONDS = 0.4


@check("dsb.prepare.repeated", "Preparing the same copy again has the same answer.", spec=PREPARE)
async def prepare_repeated(bench: DsbBench) -> None:
    service, bound = await bench.filled(one="1")
    request = await bench.prepare_request(service)
    first = await bench.talk.ask("prepare_copy", request, Prepared)
    await (await bench.probe()).write(bound, "two", "2")
    again = await bench.talk.ask("prepare_copy", request, Prepared)
    attempt = await bench.talk.ask("prepare_copy", renewed(request), Prepared)
    holds(first == again == attempt, f"first {first}, then {again} and {attempt}")


@check("dsb.prepare.unknown_service", "Preparing what is not there is not_found, naming service_id.", spec=PREPARE)
async def prepare_unknown_service(bench: DsbBench) -> None:
    request = msgspec.structs.replace(await bench.prepare_request("x"), service_id=name_of("nobody"))
    await bench.talk.refuses("prepare_copy", request, "not_found", field="service_id")


@check("dsb.prepare.expires", "A moment is dropped by itself after hold_seconds: moment_lost.", spec=PREPARE)
async def prepare_expires(bench: DsbBench) -> None:
    prepared = await bench.prepare(await bench.provision(), hold_seconds=HOLD_SECONDS)
    deadline = asyncio.get_running_loop().time() + bench.talk.patience_seconds
    await asyncio.sleep(HOLD_SECONDS)

    async def lost() -> bool:
        outcome = await bench.talk.exchange("prepare_copy", renewed(prepared))
        return outcome.problem is not None and outcome.problem.code == "moment_lost"

    while not await lost():
        holds(asyncio.get_running_loop().time() < deadline, f"it is still held, asked for were {HOLD_SECONDS} s")
        await asyncio.sleep(0.1)


@check("dsb.prepare.never_new", "A moment that was let go is never fixed anew for the same copy.", spec=PREPARE)
async def prepare_never_new(bench: DsbBench) -> None:
    prepared = await bench.prepare(await bench.provision())
    await bench.talk.ask("discard_copy", DiscardCopy(id=new_id(), copy=prepared.copy), Done)
    await bench.talk.refuses("prepare_copy", renewed(prepared), "moment_lost")


@check(
    "dsb.copy.moment", "The copy holds what was there at the moment, and nothing that was written later.", spec=PREPARE
)
async def copy_moment(bench: DsbBench) -> None:
    service, bound = await bench.filled(before="1", changed="old")
    prepared = await bench.prepare(service)
    probe = await bench.probe()
    await probe.write(bound, "later", "2")
    await probe.write(bound, "changed", "new")
    await bench.copy(prepared)
    found = await bench.restored(prepared)
    holds(found == {"before": "1", "changed": "old"}, f"restored is {found}")


@check("dsb.copy.parts", "The parts that it tells are those that the repository received.", spec=COPY)
async def copy_parts(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    prepared = await bench.prepare(service)
    copied = await bench.copy(prepared)
    told = {part.name: (part.size, part.digest) for part in copied.parts}
    stored = bench.copies.opened(prepared.copy).parts
    received = {name: (each.part.size, each.part.digest) for name, each in stored.items()}
    holds(told == received, f"told {told}, received {received}")
    holds(told, "a copy of a data service with data has no part")


@check("dsb.copy.format", "The copy is of a format that info names.", spec=COPY)
async def copy_format(bench: DsbBench) -> None:
    prepared = await bench.prepare(await bench.provision())
    copied = await bench.copy(prepared)
    known = (await bench.described()).copy_formats
    holds(copied.copy_format in known, f"{copied.copy_format!r} is not in {known}")


@check(
    "dsb.copy.repeated", "The same copy request again has the same answer, and another attempt works too.", spec=COPY
)
async def copy_repeated(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    prepared = await bench.prepare(service)
    request = bench.copy_request(prepared)
    first = await bench.talk.run("copy", request, Copied)
    again = await bench.talk.run("copy", request, Copied)
    attempt = await bench.talk.run("copy", renewed(request), Copied)
    holds(first == again, f"first {first}, then {again}")
    holds(attempt.copy_format == first.copy_format, f"another attempt gives {attempt}")


@check("dsb.copy.unprepared", "A copy without a prepared moment is moment_lost.", spec=COPY)
async def copy_unprepared(bench: DsbBench) -> None:
    await bench.moment_is_lost(await bench.prepare_request(await bench.provision()))


@check(
    "dsb.copy.refused_grant", "A repository that refuses fails the copy; the moment stays for another try.", spec=COPY
)
async def copy_refused_grant(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    prepared = await bench.prepare(service)
    await bench.talk.refuses("copy", bench.copy_request(prepared, purpose="read"))
    await bench.copy(prepared)


@check("dsb.copy.secret", "The token of a grant is told to nobody.", spec="schemas/secrets.py; design, section 3")
async def copy_secret(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    request = bench.copy_request(await bench.prepare(service), purpose="read")
    outcome = await bench.talk.finish("copy", request)
    told = request.grant.token.value in msgspec.json.encode(outcome).decode()
    holds(not told, "the outcome of a refused copy tells the token")


@check("dsb.discard.lets_go", "After discard_copy the copy is moment_lost.", spec=DISCARD)
async def discard_lets_go(bench: DsbBench) -> None:
    prepared = await bench.prepare(await bench.provision())
    await bench.talk.ask("discard_copy", DiscardCopy(id=new_id(), copy=prepared.copy), Done)
    await bench.moment_is_lost(prepared)


@check("dsb.discard.unknown", "Discarding an unknown copy is done.", spec=DISCARD)
async def discard_unknown(bench: DsbBench) -> None:
    await bench.talk.ask("discard_copy", DiscardCopy(id=new_id(), copy=name_of("nobody")), Done)


@check("dsb.discard.running", "discard_copy of a copy that streams ends it: moment_lost, or whole.", spec=DISCARD)
async def discard_running(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    prepared = await bench.prepare(service)
    bench.stall(prepared.copy)
    request = bench.copy_request(prepared)
    await bench.running("copy", request)

    async def streams() -> bool:
        return prepared.copy in bench.copies.waiting

    await bench.until(streams, "nothing is written to the repository")
    await bench.talk.ask("discard_copy", DiscardCopy(id=new_id(), copy=prepared.copy), Done)
    bench.copies.stalled.discard(prepared.copy)
    outcome = await bench.talk.ended(request.id)
    code = outcome.problem.code if outcome.problem else ""
    settled = outcome.state == "succeeded" or code == "moment_lost"
    holds(settled, f"the copy {outcome.state} {code}; a discarded moment is moment_lost")
    await bench.moment_is_lost(prepared)


@check(
    "dsb.deprovision.copies",
    "Deprovision lets go of prepared moments.",
    spec="schemas/brokers, Deprovision: its bindings and its prepared copies",
)
async def deprovision_copies(bench: DsbBench) -> None:
    service = await bench.provision()
    prepared = await bench.prepare(service)
    await bench.deprovision(service)
    await bench.moment_is_lost(prepared)


@check("dsb.restore.independent", "What is restored is a data service of its own.", spec=RESTORE)
async def restore_independent(bench: DsbBench) -> None:
    service, bound = await bench.filled(one="1")
    prepared = await bench.prepare(service)
    await bench.copy(prepared)
    restored = await bench.provision(restore=bench.copies.grant(prepared.copy, "read"))
    probe, other = await bench.probe(), await bench.bind(restored)
    await probe.write(other, "two", "2")
    found = await probe.read(bound)
    holds(found == {"one": "1"}, f"what is written to the restored one is read in the first: {found}")


@check("dsb.restore.damaged", "A copy that is not whole fails the restore, and nothing is left of it.", spec=RESTORE)
async def restore_damaged(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    prepared = await bench.prepare(service)
    await bench.copy(prepared)
    bench.copies.opened(prepared.copy).parts.clear()
    request = await bench.provision_request(restore=bench.copies.grant(prepared.copy, "read"))
    await bench.talk.refuses("provision", request)
    left = await bench.traces(request)
    holds(not left, f"what is left: {left}")


@check(
    "dsb.restart.moment",
    "After a restart the moment is the same or moment_lost, never a new one.",
    spec=PREPARE,
    restarts=True,
)
async def restart_moment(bench: DsbBench) -> None:
    service, bound = await bench.filled(one="1")
    prepared: PrepareCopy = await bench.prepare(service)
    await bench.restart()
    await (await bench.probe()).write(bound, "later", "2")
    await bench.talk.exchange("prepare_copy", renewed(prepared))
    request = bench.copy_request(prepared)
    outcome = await bench.talk.finish("copy", request)
    if outcome.state == "succeeded":
        bench.committed(prepared, convert(outcome.result, Copied))
        found = await bench.restored(prepared)
        holds(found == {"one": "1"}, f"a new moment was fixed: restored is {found}")
    else:
        code = outcome.problem.code if outcome.problem else "no problem"
        holds(code == "moment_lost", f"the copy {outcome.state}: {code}")
