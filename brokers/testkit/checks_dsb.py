"""Data service brokers: provision, describe, bind, remove, secrets."""

from __future__ import annotations

import asyncio

import msgspec

from brokers.testkit.bench import name_of
from brokers.testkit.checks import NotApplicable, check, holds
from brokers.testkit.dsb_bench import DsbBench
from schemas.brokers import (
    Bind,
    Bound,
    DataServiceHealth,
    Deprovision,
    DescribeDataServices,
    Done,
    DsbInfo,
    Health,
    InfoRequest,
    Provisioned,
    StageCopy,
    StatusRequest,
    Unbind,
)
from schemas.ids import new_id

PROVISION = "schemas/brokers, Provision"
DEPROVISION = "schemas/brokers, Deprovision"
BIND = "schemas/brokers, Bind and Bound"
UNBIND = "schemas/brokers, Unbind"
ORPHANS = "design, section 5: an orphan is anything that carries our labels; schemas/brokers, describe"


@check(
    "dsb.info.plans", "Plans have names of their own, and a cost that is known or null.", spec="schemas/values.py, Plan"
)
async def plans(bench: DsbBench) -> None:
    info: DsbInfo = await bench.info()
    names = [plan.name for plan in info.plans]
    holds(all(names) and len(names) == len(set(names)), f"the names of the plans are {names}")
    holds(all((plan.monthly_cost or 0) >= 0 and plan.currency for plan in info.plans), "a cost is negative")


@check(
    "dsb.info.copies",
    "A broker that makes copies says in which formats and over which protocols.",
    spec="schemas/brokers, DsbInfo",
)
async def info_copies(bench: DsbBench) -> None:
    info: DsbInfo = await bench.info()
    holds(bool(info.copy_formats) == bool(info.protocols), f"formats {info.copy_formats}, protocols {info.protocols}")
    holds(all(info.copy_formats) and all(info.protocols), "a name is empty")


@check("dsb.provision.plan", "An unknown plan is refused by the field plan.", spec=PROVISION)
async def provision_plan(bench: DsbBench) -> None:
    request = msgspec.structs.replace(await bench.provision_request(), plan="no-such-plan")
    await bench.talk.refuses("provision", request, "invalid", field="plan")


@check("dsb.provision.type", "A type that it does not offer is refused by the field type.", spec=PROVISION)
async def provision_type(bench: DsbBench) -> None:
    offered = (await bench.described()).types
    other = next(each for each in ("mail", "search", "database") if each not in offered)
    request = msgspec.structs.replace(await bench.provision_request(), type=other)
    await bench.talk.refuses("provision", request, "invalid", field="type")


@check(
    "dsb.provision.parameters", "A parameter that it does not know is refused by the field parameters.", spec=PROVISION
)
async def provision_parameters(bench: DsbBench) -> None:
    request = msgspec.structs.replace(await bench.provision_request(), parameters={"no-such-parameter": "1"})
    problem = await bench.talk.refuses("provision", request, "invalid", field="no-such-parameter")
    holds("parameters" in (problem.field or ""), f"the field is {problem.field}")


@check(
    "dsb.provision.copy_format",
    "A copy format that it can't restore is refused by the field copy_format, and nothing is made.",
    spec=PROVISION,
)
async def provision_copy_format(bench: DsbBench) -> None:
    copy = name_of("foreign")
    bench.copies.opened(copy).committed = True
    request = await bench.provision_request(restore=bench.copies.grant(copy, "read"))
    request = msgspec.structs.replace(request, copy_format="no-such-format")
    await bench.talk.refuses("provision", request, "invalid", field="copy_format")
    holds(not await bench.traces(request), "something was made all the same")


@check("dsb.provision.keeps", "Provisioning what is there keeps its data.", spec=PROVISION)
async def provision_keeps(bench: DsbBench) -> None:
    service, bound = await bench.filled(one="1")
    await bench.provision(service)
    await bench.has(bound, {"one": "1"})


@check("dsb.provision.concurrent", "Two attempts at once at the same data service make one.", spec=PROVISION)
async def provision_concurrent(bench: DsbBench) -> None:
    first = await bench.provision_request()
    second = msgspec.structs.replace(first, id=new_id())
    results = await asyncio.gather(
        bench.talk.run("provision", first, Provisioned), bench.talk.run("provision", second, Provisioned)
    )
    holds(results[0].resource == results[1].resource, f"two resources: {results}")


@check("dsb.describe.labels", "What carries our labels is found without knowing its id, labels and all.", spec=ORPHANS)
async def describe_labels(bench: DsbBench) -> None:
    request = await bench.provision_request()
    await bench.talk.run("provision", request, Provisioned)
    mine = [each for each in await bench.describe() if set(request.labels.items()) <= set(each.labels.items())]
    holds(mine, f"describe shows nothing with the labels {request.labels}")
    known = any(request.service_id in (each.id, each.labels.get("service_id")) for each in mine)
    holds(known, "no resource tells the service_id as its id or in the label service_id")


@check("dsb.describe.one", "describe of one data service shows nothing of others.", spec=ORPHANS)
async def describe_one(bench: DsbBench) -> None:
    one, other = await bench.provision(), await bench.provision()
    shown = {each.id for each in await bench.describe(one)}
    holds(shown, "describe shows nothing")
    foreign = shown & {each.id for each in await bench.describe(other)}
    holds(not foreign, f"describe of one shows {', '.join(foreign)} of another")


@check("dsb.describe.unknown", "describe of an unknown data service shows nothing.", spec=ORPHANS)
async def describe_unknown(bench: DsbBench) -> None:
    shown = await bench.describe(name_of("nobody"))
    holds(not shown, f"it shows {shown}")


@check("dsb.deprovision.all_gone", "After deprovision nothing is left, bindings too.", spec=DEPROVISION)
async def deprovision_all_gone(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    await bench.deprovision(service)
    left = await bench.describe(service)
    holds(not left, f"describe still shows {', '.join(f'{each.kind} {each.name}' for each in left)}")


@check("dsb.deprovision.forgets", "A data service that is provisioned again by its id is blank.", spec=DEPROVISION)
async def deprovision_forgets(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    await bench.deprovision(service)
    await bench.provision(service)
    found = await (await bench.probe()).read(await bench.bind(service))
    holds(not found, f"the old data is there again: {found}")


@check("dsb.deprovision.unknown", "Deprovisioning what is not there is done.", spec=DEPROVISION)
async def deprovision_unknown(bench: DsbBench) -> None:
    await bench.talk.run("deprovision", Deprovision(id=new_id(), service_id=name_of("nobody")), Done)


# --- bindings


@check("dsb.bind.attributes", "A binding has the attributes that info declares, secret and plain.", spec=BIND)
async def bind_attributes(bench: DsbBench) -> None:
    info = await bench.described()
    bound = await bench.bind(await bench.provision())
    holds(set(bound.attributes) == set(info.attributes), f"{sorted(bound.attributes)}, not {sorted(info.attributes)}")
    secret, declared = sorted(bound.secrets), sorted(info.secret_attributes)
    holds(secret == declared, f"secret ones {secret}, not {declared}")


@check("dsb.bind.works", "An app can write and read through the binding.", spec=BIND)
async def bind_works(bench: DsbBench) -> None:
    await bench.filled(one="1", two="2")


@check("dsb.bind.secret", "The proposed secret is the one that is used, or credentials are derived from it.", spec=BIND)
async def bind_secret(bench: DsbBench) -> None:
    if not (await bench.described()).secret_attributes:
        raise NotApplicable("its bindings have no secrets")
    service = await bench.provision()
    request = bench.bind_request(service)
    bound = await bench.talk.ask("bind", request, Bound)
    if any(request.secret.value in secret.value for secret in bound.secrets.values()):
        return
    await bench.unbind(service)
    again = await bench.talk.ask("bind", bench.again(request), Bound)
    holds(
        again.secrets == bound.secrets, "the secret is in none of the secret attributes, nor are they derived from it"
    )
    other = await bench.talk.ask("bind", bench.bind_request(service), Bound)
    holds(other.secrets != bound.secrets, "another secret gives the same credentials")


@check("dsb.bind.repeated", "The same binding again gives the same credentials, and they work.", spec=BIND)
async def bind_repeated(bench: DsbBench) -> None:
    service = await bench.provision()
    request = bench.bind_request(service)
    first = await bench.talk.ask("bind", request, Bound)
    shown = len(await bench.describe(service))
    again = await bench.talk.ask("bind", request, Bound)
    attempt = await bench.talk.ask("bind", bench.again(request), Bound)
    holds(first == again == attempt, f"first {first.attributes}, then {again.attributes} and {attempt.attributes}")
    holds(len(await bench.describe(service)) == shown, "describe shows more after the repeat")
    holds(await (await bench.probe()).opens(attempt), "the credentials don't open it")


@check("dsb.bind.concurrent", "The same binding many times at once gives the same credentials.", spec=BIND)
async def bind_concurrent(bench: DsbBench) -> None:
    service = await bench.provision()
    request = bench.bind_request(service)
    bounds = await asyncio.gather(*(bench.talk.ask("bind", request, Bound) for _ in range(5)))
    holds(all(each == bounds[0] for each in bounds), "the credentials differ")
    holds(await (await bench.probe()).opens(bounds[0]), "the credentials don't open it")


@check("dsb.bind.unknown_service", "Binding to what is not there is not_found, naming service_id.", spec=BIND)
async def bind_unknown_service(bench: DsbBench) -> None:
    request = Bind(id=new_id(), service_id=name_of("nobody"), binding_id="b1", secret=bench.bind_request("x").secret)
    await bench.talk.refuses("bind", request, "not_found", field="service_id")


async def _needs_credentials(bench: DsbBench) -> None:
    if not (await bench.described()).secret_attributes:
        raise NotApplicable("its bindings have no credentials")


@check("dsb.unbind.works", "After unbind the credentials open nothing.", spec=UNBIND)
async def unbind_works(bench: DsbBench) -> None:
    await _needs_credentials(bench)
    service, bound = await bench.filled(one="1")
    probe = await bench.probe()
    await bench.unbind(service)

    async def shut() -> bool:
        return not await probe.opens(bound)

    await bench.until(shut, "they still do")


@check("dsb.unbind.others", "unbind takes one binding away and no other, and no data.", spec=UNBIND)
async def unbind_others(bench: DsbBench) -> None:
    service, _ = await bench.filled(one="1")
    other = await bench.bind(service, binding="b2")
    await bench.unbind(service)
    probe = await bench.probe()
    holds(await probe.opens(other), "the other binding does not open it any more")
    await bench.has(other, {"one": "1"})


@check("dsb.unbind.unknown", "Unbinding what is not bound is done.", spec=UNBIND)
async def unbind_unknown(bench: DsbBench) -> None:
    service = await bench.provision()
    for each in (service, name_of("nobody")):
        await bench.talk.ask("unbind", Unbind(id=new_id(), service_id=each, binding_id="nobody"), Done)


@check(
    "dsb.secrets.hidden",
    "A secret stands in the answer to bind and nowhere else.",
    spec="design, section 3: no secret ever enters a stream; schemas/secrets.py",
)
async def secrets_hidden(bench: DsbBench) -> None:
    talk = bench.talk
    provision = await bench.provision_request()
    await talk.run("provision", provision, Provisioned)
    request = bench.bind_request(provision.service_id)
    await talk.ask("bind", request, Bound)
    absent = msgspec.structs.replace(request, id=new_id(), service_id=name_of("nobody"))
    for operation, message in (
        ("info", InfoRequest()),
        ("describe", DescribeDataServices(service_id=provision.service_id)),
        ("describe", DescribeDataServices()),
        ("health", DataServiceHealth(service_id=provision.service_id)),
        ("status", StatusRequest(id=provision.id)),
        ("provision", provision),
        ("bind", absent),
        ("status", StatusRequest(id=request.id)),
    ):
        answer = await talk.exchange(operation, message)
        told = request.secret.value in answer.payload.decode(errors="replace") + str(dict(answer.headers))
        holds(not told, f"the answer to {operation} tells the secret of a binding")


@check(
    "dsb.health.service",
    "A data service is healthy, and one that is not there is not.",
    spec="schemas/brokers, Health",
)
async def health_service(bench: DsbBench) -> None:
    service = await bench.provision()
    said = await bench.talk.ask("health", DataServiceHealth(service_id=service), Health)
    holds(said.healthy, f"it is not healthy: {said.message}")
    absent = await bench.talk.ask("health", DataServiceHealth(service_id=name_of("nobody")), Health)
    holds(not absent.healthy, "one that is not there is healthy")


@check(
    "dsb.stage", "stage_copy is done, whether or not there is something to stage.", spec="schemas/brokers, StageCopy"
)
async def stage(bench: DsbBench) -> None:
    prepared = await bench.prepare_request(await bench.provision())
    await bench.talk.run("stage_copy", StageCopy(id=new_id(), service_id=prepared.service_id, copy=prepared.copy), Done)
