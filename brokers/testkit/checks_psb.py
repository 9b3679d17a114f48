"""Platform brokers: deploy, describe, environment, logs, scale, remove."""

from __future__ import annotations

import asyncio

import msgspec

from brokers.testkit.bench import name_of
from brokers.testkit.checks import check, holds
from brokers.testkit.conversation import renewed
from brokers.testkit.psb_bench import PsbBench
from schemas.brokers import (
    Deployed,
    DescribeServices,
    Done,
    LogsRequest,
    PsbInfo,
    RemoveService,
    ServicesDescription,
    Spaces,
    SpacesRequest,
    StatusRequest,
)
from schemas.ids import new_id

DEPLOY = "schemas/brokers, DeployService"
DESCRIBE = "schemas/brokers, ServiceStatus"
SCALE = "schemas/brokers, ScaleService"
REMOVE = "schemas/brokers, RemoveService"
LOGS = "schemas/brokers, LogsRequest"
SECRETS = "design, section 3: no secret ever enters a stream; schemas/secrets.py"


@check("psb.spaces", "spaces answers what info names.", spec="schemas/brokers, Spaces")
async def spaces(bench: PsbBench) -> None:
    info: PsbInfo = await bench.info()
    said = await bench.talk.ask("spaces", SpacesRequest(), Spaces)
    holds(set(said.spaces) == set(info.spaces), f"spaces {said.spaces}, info {info.spaces}")


@check("psb.deploy.answers", "A deploy that succeeded tells where the service answers, and it does.", spec=DEPLOY)
async def deploy_answers(bench: PsbBench) -> None:
    url = await bench.deploy()
    await bench.must_answer(url, f"nothing answers at {url}")


@check("psb.deploy.unchanged", "The same content again is no change: the service runs on.", spec=DEPLOY)
async def deploy_unchanged(bench: PsbBench) -> None:
    request = bench.deploy_request()
    url = await bench.deploy(request)
    before = await bench.about(url)
    after = await bench.about(await bench.deploy(renewed(request)))
    holds(before.run == after.run, "the service was started again")


@check("psb.deploy.replaced", "Other content replaces the service.", spec=DEPLOY)
async def deploy_replaced(bench: PsbBench) -> None:
    before = await bench.about(await bench.deploy(bench.deploy_request(environment={"COLOUR": "red"})))
    after = await bench.about(await bench.deploy(bench.deploy_request(environment={"COLOUR": "blue"})))
    holds(before.run != after.run, "the service runs on as it was")
    holds(after.environment.get("COLOUR") == "blue", f"COLOUR is {after.environment.get('COLOUR')}")
    await bench.status_of()


@check("psb.deploy.concurrent", "The same deploy many times at once makes one service.", spec=DEPLOY)
async def deploy_concurrent(bench: PsbBench) -> None:
    request = bench.deploy_request()
    attempts = [request, request, renewed(request)]
    results = await asyncio.gather(*(bench.talk.run("deploy", each, Deployed) for each in attempts))
    runs = {(await bench.about(str(each.url))).run for each in results}
    holds(len(runs) == 1, f"{len(runs)} services run")
    await bench.status_of()


@check("psb.deploy.unhealthy", "A service that does not get healthy fails its deploy, with a cause.", spec=DEPLOY)
async def deploy_unhealthy(bench: PsbBench) -> None:
    request = bench.deploy_request(environment={"CONFORM_HEALTH": "never"}, start_period_seconds=0.8)
    problem = await bench.talk.refuses("deploy", request)
    holds(problem.message, "the problem has no message")
    well = [each for each in await bench.describe() if each.healthy]
    holds(not well, "describe says that it is healthy")


@check("psb.deploy.after_failure", "After a failed deploy, a better one succeeds.", spec=DEPLOY)
async def deploy_after_failure(bench: PsbBench) -> None:
    bad = bench.deploy_request(environment={"CONFORM_HEALTH": "never"}, start_period_seconds=0.8)
    await bench.talk.refuses("deploy", bad)
    await bench.must_answer(await bench.deploy(), "the better one does not answer")


@check("psb.deploy.space", "An unknown space is refused by the field space.", spec=DEPLOY)
async def deploy_space(bench: PsbBench) -> None:
    await bench.talk.refuses("deploy", bench.deploy_request(space="no-such-space"), "invalid", field="space")


@check("psb.describe.state", "describe shows a running, healthy service and where it answers.", spec=DESCRIBE)
async def describe_state(bench: PsbBench) -> None:
    url = await bench.deploy()
    status = await bench.status_of()
    holds(status.state == "running" and status.healthy, f"state {status.state}, healthy {status.healthy}")
    holds(status.url == url, f"the url is {status.url}, deploy said {url}")


@check(
    "psb.describe.labels",
    "What carries our labels is found without knowing its instance, labels and all.",
    spec="design, section 5: an orphan is anything that carries our labels",
)
async def describe_labels(bench: PsbBench) -> None:
    request = bench.deploy_request()
    await bench.deploy(request)
    everything = await bench.talk.ask("describe", DescribeServices(), ServicesDescription)
    mine = [each for each in everything.services if each.instance == bench.instance]
    holds(mine, "describe of all does not show it")
    missing = set(request.labels.items()) - set(mine[0].labels.items())
    holds(not missing, f"labels that were given and are not shown: {dict(missing)}")


@check("psb.describe.instance", "describe of one instance shows nothing of others.", spec=DESCRIBE)
async def describe_instance(bench: PsbBench) -> None:
    await bench.deploy()
    shown = await bench.describe(name_of("nobody"))
    holds(not shown, f"it shows {[each.service for each in shown]}")


@check("psb.health.told", "describe says what the probe says: ill, and well again.", spec=DESCRIBE)
async def health_told(bench: PsbBench) -> None:
    url = await bench.deploy()

    async def healthy() -> bool:
        return (await bench.status_of()).healthy

    async def unhealthy() -> bool:
        return not await healthy()

    await bench.tell(url, "/ill")
    await bench.until(unhealthy, "its probe fails and describe says healthy")
    await bench.reach(url, "/well")
    await bench.until(healthy, "its probe is well and describe says unhealthy")


@check("psb.crash.restarted", "A service that ended is started again, and the restart is counted.", spec=DESCRIBE)
async def crash_restarted(bench: PsbBench) -> None:
    url = await bench.deploy()
    before = (await bench.about(url)).run
    await bench.tell(url, "/exit")

    async def back() -> bool:
        status = await bench.status_of()
        return status.healthy and status.restarts >= 1 and bool(status.url) and await bench.answers(str(status.url))

    await bench.until(back, "it is not back, or its restart is not counted")
    holds((await bench.about(str((await bench.status_of()).url))).run != before, "it never ended")


@check("psb.environment.given", "The service finds its variables, secret ones too.", spec=DEPLOY)
async def environment_given(bench: PsbBench) -> None:
    url = await bench.deploy(bench.deploy_request(environment={"COLOUR": "a b=c'\"ä"}, secrets={"PASS": "p%$'\""}))
    found = (await bench.about(url)).environment
    given = {"COLOUR": "a b=c'\"ä", "PASS": "p%$'\""}
    seen = {name: found.get(name) for name in given}
    holds(seen == given, "a variable is missing or another one")


@check("psb.environment.isolated", "It finds nothing of another service, and nothing of the broker.", spec=DEPLOY)
async def environment_isolated(bench: PsbBench) -> None:
    await bench.deploy(bench.deploy_request("other", environment={"OF_OTHER": "1"}, secrets={"SECRET_OF_OTHER": "2"}))
    found = (await bench.about(await bench.deploy())).environment
    foreign = [name for name in found if name in ("OF_OTHER", "SECRET_OF_OTHER") or name.startswith("CALQUE_")]
    holds(not foreign, f"it finds {', '.join(foreign)}")


@check("psb.secrets.hidden", "A secret variable is told in no answer.", spec=SECRETS)
async def secrets_hidden(bench: PsbBench) -> None:
    secret = f"conformance-secret-{new_id()}"
    good = bench.deploy_request(secrets={"PASS": secret})
    await bench.deploy(good)
    bad = bench.deploy_request(secrets={"PASS": secret}, space="no-such-space")
    ill = bench.deploy_request(
        "ill", environment={"CONFORM_HEALTH": "never"}, secrets={"PASS": secret}, start_period_seconds=0.4
    )
    await bench.talk.finish("deploy", ill)
    await bench.talk.refuses("deploy", bad)
    for operation, request in (
        ("describe", DescribeServices()),
        ("status", StatusRequest(id=good.id)),
        ("deploy", good),
        ("deploy", bad),
        ("status", StatusRequest(id=bad.id)),
        ("status", StatusRequest(id=ill.id)),
    ):
        answer = await bench.talk.exchange(operation, request)
        told = secret in answer.payload.decode(errors="replace") + str(dict(answer.headers))
        holds(not told, f"the answer to {operation} tells a secret variable")


@check("psb.secrets.logs", "A secret that the service prints does not come out of logs.", spec=SECRETS)
async def secrets_logs(bench: PsbBench) -> None:
    secret = f"conformance-secret-{new_id()}"
    said = {"CONFORM_SAY": f"before|pass {secret}|after"}
    await bench.deploy(bench.deploy_request(secrets={"PASS": secret, **said}))

    async def there() -> bool:
        return any("before" in line for line in await bench.logs()) or bool(await bench.logs())

    await bench.until(there, "nothing that it printed is in its log")
    holds(not any(secret in line for line in await bench.logs()), "the log tells a secret variable")


@check("psb.logs.lines", "logs has what the service printed, oldest first, without line ends.", spec=LOGS)
async def logs_lines(bench: PsbBench) -> None:
    await bench.deploy(bench.deploy_request(environment={"CONFORM_SAY": "first|second|third"}))

    async def said() -> bool:
        return [line for line in await bench.logs() if line in ("first", "second", "third")] == [
            "first",
            "second",
            "third",
        ]

    await bench.until(said, "the lines first, second, third are not in its log in this order")


@check("psb.logs.last", "logs gives no more than the last lines that were asked for.", spec=LOGS)
async def logs_last(bench: PsbBench) -> None:
    await bench.deploy(bench.deploy_request(environment={"CONFORM_SAY": "first|second|third"}))

    async def last() -> bool:
        return await bench.logs(2) == ("second", "third")

    await bench.until(last, "the last 2 lines are not second and third")


@check("psb.logs.unknown", "The log of an unknown service is not_found.", spec=LOGS)
async def logs_unknown(bench: PsbBench) -> None:
    await bench.talk.refuses("logs", LogsRequest(instance=bench.instance, service="nobody"), "not_found")


@check("psb.scale.zero", "Scaled to 0 it does not run, and is shown as stopped; again is done.", spec=SCALE)
async def scale_zero(bench: PsbBench) -> None:
    url = await bench.deploy()
    await bench.scale(0)
    await bench.scale(0)
    holds(not await bench.answers(url), "it still answers")
    status = await bench.status_of()
    holds(status.state == "stopped" and not status.healthy, f"state {status.state}, healthy {status.healthy}")


@check("psb.scale.one", "Scaled to 1 again it runs as it was deployed.", spec=SCALE)
async def scale_one(bench: PsbBench) -> None:
    await bench.deploy(bench.deploy_request(environment={"COLOUR": "red"}, secrets={"PASS": "word"}))
    await bench.scale(0)
    await bench.scale(1)
    found = (await bench.about(str((await bench.status_of()).url))).environment
    holds((found.get("COLOUR"), found.get("PASS")) == ("red", "word"), "a variable is missing or another one")


@check("psb.scale.deployed", "A deploy of a stopped service starts it.", spec=DEPLOY)
async def scale_deployed(bench: PsbBench) -> None:
    request = bench.deploy_request()
    await bench.deploy(request)
    await bench.scale(0)
    await bench.must_answer(await bench.deploy(renewed(request)), "it does not answer")


@check("psb.scale.unknown", "Scaling what is not there: to 0 is done, to 1 is not_found.", spec=SCALE)
async def scale_unknown(bench: PsbBench) -> None:
    await bench.scale(0, service="nobody")
    await bench.talk.refuses("scale", bench.scale_request(1, service="nobody"), "not_found")


@check("psb.remove.all_gone", "After remove nothing runs and nothing is shown.", spec=REMOVE)
async def remove_all_gone(bench: PsbBench) -> None:
    url = await bench.deploy()
    await bench.remove()
    holds(not await bench.answers(url), "it still answers")
    holds(not await bench.describe(), "describe still shows it")
    await bench.talk.refuses("logs", LogsRequest(instance=bench.instance, service="web"), "not_found")


@check("psb.remove.unknown", "Removing what is not there is done.", spec=REMOVE)
async def remove_unknown(bench: PsbBench) -> None:
    await bench.talk.run("remove", RemoveService(id=new_id(), instance=bench.instance, service="nobody"), Done)


@check(
    "psb.restart.services",
    "After a restart of the broker its services run and are healthy, or soon again.",
    spec="design, section 5; schemas/brokers, describe",
    restarts=True,
)
async def restart_services(bench: PsbBench) -> None:
    request = bench.deploy_request(environment={"COLOUR": "red"})
    await bench.deploy(request)
    await bench.restart()

    async def back() -> bool:
        found = [each for each in await bench.describe() if each.service == "web"]
        return bool(found) and found[0].healthy and await bench.answers(str(found[0].url))

    await bench.until(back, "it is not back")
    found = (await bench.about(str((await bench.status_of()).url))).environment
    holds(found.get("COLOUR") == "red", "its variables are lost")
    holds(set(msgspec.to_builtins(request.labels)) <= set((await bench.status_of()).labels), "its labels are lost")
