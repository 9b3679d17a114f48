"""Data service brokers that can attach: what was there before is bound and copied, and stays the user's."""

from __future__ import annotations

import msgspec

from brokers.testkit.bench import name_of
from brokers.testkit.checks import NotApplicable, check, holds
from brokers.testkit.conversation import renewed
from brokers.testkit.dsb_bench import DsbBench
from schemas.brokers import (
    Attachable,
    Bind,
    Bound,
    CopyData,
    Deprovision,
    Done,
    Existing,
    PrepareCopy,
    Prepared,
    Unbind,
)
from schemas.ids import new_id

SPEC = "schemas/brokers: Attach, Existing; docs/adr/0025"
TEXTS = {"one": "what was there", "two": "before"}
TYPED_BY_MISTAKE = "a-password-in-a-url"


@check("dsb.attach.works", "attach answers what it found, and again the same.", spec=SPEC)
async def works(bench: DsbBench) -> None:
    existing, _ = await bench.existing(**TEXTS)
    request = await bench.attach_request(existing)
    first = await bench.talk.run("attach", request, Attachable)
    again = await bench.talk.run("attach", renewed(request), Attachable)
    holds(first.resource and first == again, f"first {first.resource}, then {again.resource}")


@check("dsb.attach.unreachable", "What is not there can't be attached.", spec=SPEC)
async def unreachable(bench: DsbBench) -> None:
    existing, _ = await bench.existing(**TEXTS)
    head, mark, options = existing.url.partition("?")
    nowhere = msgspec.structs.replace(existing, url=f"{head}-is-not-there{mark}{options}")
    outcome = await bench.talk.finish("attach", await bench.attach_request(nowhere))
    holds(outcome.state == "failed", f"attach of {nowhere.url} {outcome.state}")


@check("dsb.attach.password", "A URL with a password in it is refused, and the password is not repeated.", spec=SPEC)
async def password(bench: DsbBench) -> None:
    existing, _ = await bench.existing(**TEXTS)
    scheme, _, rest = existing.url.partition("://")
    told = msgspec.structs.replace(existing, url=f"{scheme}://user:{TYPED_BY_MISTAKE}@{rest.rpartition('@')[2]}")
    outcome = await bench.talk.finish("attach", await bench.attach_request(told))
    problem = outcome.problem
    holds(problem is not None and problem.code == "invalid", f"attach {outcome.state}, its problem is {problem}")
    holds(problem and TYPED_BY_MISTAKE not in problem.sentence(), "the problem repeats the password")


@check("dsb.attach.bind", "A binding of it hands through the user's own access, not what was proposed.", spec=SPEC)
async def binding(bench: DsbBench) -> None:
    existing, _ = await bench.existing(**TEXTS)
    service = name_of("attached")
    request: Bind = msgspec.structs.replace(bench.bind_request(service), existing=existing)
    bound = await bench.talk.ask("bind", request, Bound)
    await bench.has(bound, TEXTS)
    handed = [name for name, secret in bound.secrets.items() if request.secret.value in secret.value]
    holds(not handed, f"the proposed secret is in {handed}")


@check("dsb.attach.copy", "A copy of it holds what was there at its moment, and is restored as a new one.", spec=SPEC)
async def copied(bench: DsbBench) -> None:
    existing, owner = await bench.existing(**TEXTS)
    prepared = await _prepare(bench, name_of("attached"), existing)
    await bench.talk.run("copy", _copying(bench, prepared), bench.result_of("copy"))
    bench.copies.opened(prepared.copy).committed = True
    found = await bench.restored(prepared)
    holds(found == TEXTS, f"there was {TEXTS}, restored is {found}")
    await bench.has(owner, TEXTS)


@check(
    "dsb.attach.kept", "No request that removes reaches it, not even by the id that it was attached under.", spec=SPEC
)
async def kept(bench: DsbBench) -> None:
    existing, owner = await bench.existing(**TEXTS)
    service = name_of("attached")
    await bench.talk.run("attach", await bench.attach_request(existing, service_id=service), Attachable)
    request: Bind = msgspec.structs.replace(bench.bind_request(service), existing=existing)
    await bench.talk.ask("bind", request, Bound)
    await _prepare(bench, service, existing)
    unbind = Unbind(id=new_id(), service_id=service, binding_id=request.binding_id)
    await bench.talk.ask("unbind", unbind, Done)
    await bench.talk.run("deprovision", Deprovision(id=new_id(), service_id=service), Done)
    await bench.has(owner, TEXTS)


@check("dsb.attach.not_ours", "describe does not show it as something that the broker made.", spec=SPEC)
async def not_ours(bench: DsbBench) -> None:
    existing, _ = await bench.existing(**TEXTS)
    request = await bench.attach_request(existing)
    await bench.talk.run("attach", request, Attachable)
    shown = [f"{each.kind} {each.name}" for each in await bench.describe(request.service_id)]
    shown += [each.name for each in await bench.describe() if each.labels.get("service_id") == request.service_id]
    holds(not shown, f"it shows {shown}")


async def _prepare(bench: DsbBench, service: str, existing: Existing) -> PrepareCopy:
    if not (await bench.described()).copy_formats:
        raise NotApplicable("the broker makes no copies")
    request = msgspec.structs.replace(await bench.prepare_request(service), existing=existing)
    await bench.talk.ask("prepare_copy", request, Prepared)
    return request


def _copying(bench: DsbBench, prepared: PrepareCopy) -> CopyData:
    return msgspec.structs.replace(bench.copy_request(prepared), existing=prepared.existing)
