"""Deploying, describing, scaling and removing app services."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from pathlib import Path

from schemas.brokers import Deployed, Done, Outcome, RemoveService, ScaleService
from schemas.envelope import convert
from schemas.ids import new_id
from schemas.problems import Actor
from schemas.values import Artifact, HealthCheck
from tests.integration.broker_process import eventually
from tests.integration.process.apps import (
    INSTANCE,
    Platform,
    call,
    deploy_request,
    is_running,
    processes_of,
    spec,
    write_app,
)


async def test_a_service_runs_in_a_clean_environment_of_its_own(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app), environment={"TITLE": "Ideas"}, secrets={"URI": "postgres://u:pw@h/d"})
    seen = await call(deployed.url, "/env")
    assert seen["env"]["TITLE"] == "Ideas"
    assert seen["env"]["URI"] == "postgres://u:pw@h/d"
    assert int(seen["env"]["PORT"]) == deployed.port
    allowed = {"PATH", "HOME", "LANG", "TMPDIR", "PYTHONUNBUFFERED", "HOST", "PORT", "TITLE", "URI", "LC_CTYPE"}
    assert set(seen["env"]) <= allowed
    own = platform.state / "services" / INSTANCE / "web"
    assert seen["cwd"] == str(own / "artifact")
    assert seen["env"]["HOME"] == str(own / "home")
    assert seen["sid"] == seen["pid"]
    open_files = {(own / "logs" / "web.log"), Path("/dev/null")}
    inherited = {Path(f"/proc/{seen['pid']}/fd/{number}").resolve() for number in (0, 1, 2)}
    assert inherited == open_files
    assert not Path(f"/proc/{seen['pid']}/fd/3").resolve().name.endswith("lock")
    status = await platform.one()
    assert (status.state, status.healthy, status.pid) == ("running", True, seen["pid"])
    assert status.labels == {"instance_name": "shop"}


async def test_the_same_content_is_no_change_and_other_content_replaces(platform: Platform, app: Path) -> None:
    first = await platform.deploy(spec(app), environment={"A": "1"})
    pid = (await platform.one()).pid
    assert await platform.deploy(spec(app), environment={"A": "1"}) == first
    assert (await platform.one()).pid == pid
    again = await platform.deploy(spec(app), environment={"A": "2"})
    assert again.url == first.url
    assert (await platform.one()).pid != pid
    assert not is_running(pid)
    assert (await call(again.url, "/env"))["env"]["A"] == "2"
    with_secret = await platform.deploy(spec(app), environment={"A": "2"}, secrets={"B": "hush"})
    assert (await call(with_secret.url, "/env"))["env"]["B"] == "hush"


async def test_two_deploys_at_the_same_time_start_one_process(platform: Platform, app: Path) -> None:
    results = await asyncio.gather(*(platform.deploy(spec(app)) for _ in range(3)))
    assert len({result.url for result in results}) == 1
    assert len(processes_of(platform.state)) == 1
    request = deploy_request(spec(app), service="other")
    outcomes = await asyncio.gather(*(platform.process.begin("deploy", request) for _ in range(3)))
    assert {outcome.state for outcome in outcomes} == {"running"}
    await platform.process.ended(request.id)
    assert len(processes_of(platform.state)) == 2


async def test_a_changed_directory_is_refused_and_a_verified_one_is_kept(platform: Platform, app: Path) -> None:
    before = spec(app)
    deployed = await platform.deploy(before)
    assert deployed.artifact_digest == before.artifact.digest
    (app / "app.py").write_text("raise SystemExit('another app')")
    assert (await platform.deploy(before, environment={"A": "1"})).artifact_digest == before.artifact.digest
    (app / "app.py").unlink()
    assert (await platform.deploy(before, service="second")).artifact_digest == before.artifact.digest
    write_app(app, extra="# new\n")
    unseen = spec(app)
    (app / "app.py").write_text("print('changed behind the template')")
    problem = await platform.process.fails("deploy", deploy_request(unseen, service="third"))
    assert (problem.code, problem.field, problem.actor) == (
        "artifact_changed",
        "spec.artifact.directory",
        Actor.BROKER,
    )
    assert "apply a new version" in (problem.remedy or "")
    assert {status.service for status in await platform.services()} == {"web", "second"}


async def test_a_wheel_runs(platform: Platform, tmp_path: Path) -> None:
    app = write_app(tmp_path / "source")
    wheel = tmp_path / "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(app / "app.py", "shop/__main__.py")
        archive.writestr("shop/__init__.py", "")
        archive.writestr("shop-1.0.data/purelib/beside.py", "")
        archive.writestr("shop-1.0.dist-info/METADATA", "Name: shop\n")
    artifact = Artifact(wheel=str(wheel), command=("python", "-m", "shop"))
    deployed = await platform.deploy(spec(app, artifact=artifact))
    seen = await call(deployed.url, "/env")
    own = Path(seen["env"]["PYTHONPATH"])
    assert (own / "beside.py").exists()
    assert Path(seen["argv"][0]).is_relative_to(own)


async def test_a_process_that_ends_during_the_deploy_fails_it(platform: Platform, app: Path) -> None:
    request = deploy_request(
        spec(app), environment={"EXIT": "3", "SAY": "no database at u:s3cr3t-word"}, secrets={"PW": "s3cr3t-word"}
    )
    problem = await platform.process.fails("deploy", request)
    assert (problem.code, problem.actor) == ("service_exited", Actor.BROKER)
    assert "code 3" in problem.message
    assert "no database at u:***" in problem.message
    status = await platform.one()
    assert (status.state, status.pid) == ("failed", None)
    assert "code 3" in status.message
    assert processes_of(platform.state) == []
    # again, with what was missing
    await platform.deploy(spec(app))


async def test_a_command_that_is_not_there_fails_the_deploy(platform: Platform, app: Path) -> None:
    artifact = Artifact(directory=str(app), command=("no-such-program",))
    problem = await platform.process.fails("deploy", deploy_request(spec(app, artifact=artifact)))
    assert problem.code == "service_exited"
    assert "cannot run 'no-such-program'" in problem.message


async def test_an_unhealthy_service_fails_the_deploy_and_is_stopped(platform: Platform, app: Path) -> None:
    check = HealthCheck(path="/nowhere-here", start_period_seconds=1.0, timeout_seconds=0.3)
    problem = await platform.process.fails("deploy", deploy_request(spec(app, health=check)))
    assert problem.code == "unhealthy"
    assert processes_of(platform.state) == []
    assert (await platform.one()).state == "failed"


async def test_health_is_watched_after_the_deploy(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app))
    ill = platform.state / "services" / INSTANCE / "web" / "home" / "ill"
    ill.touch()
    status = await platform.until(lambda status: not status.healthy, what="it is seen to be ill")
    assert status.state == "running"
    assert "500" in status.message
    ill.unlink()
    await platform.until(lambda status: status.healthy, what="it is seen to be well")


async def test_a_port_without_a_path_is_probed_by_connecting_and_a_worker_by_living(
    platform: Platform, app: Path
) -> None:
    deployed = await platform.deploy(spec(app, health=None))
    await call(deployed.url, "/health")
    artifact = Artifact(directory=str(app), command=(sys.executable, "worker.py"))
    worker = await platform.deploy(spec(app, artifact=artifact, port=None, health=None), service="worker")
    assert (worker.url, worker.port) == (None, None)
    assert (await platform.one("worker")).healthy


async def test_scaled_to_nothing_it_stays_stopped_and_comes_back_at_its_url(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app))
    await platform.scale(0)
    assert ((await platform.one()).state, processes_of(platform.state)) == ("stopped", [])
    await platform.stop()
    await platform.start()
    assert ((await platform.one()).state, processes_of(platform.state)) == ("stopped", [])
    await platform.scale(1)
    assert ((await platform.one()).healthy, (await platform.one()).url) == (True, deployed.url)
    await platform.scale(0)
    assert await platform.deploy(spec(app)) == deployed
    await platform.scale(0, service="unknown")


async def test_stop_waits_for_the_grace_and_then_kills(platform: Platform, app: Path) -> None:
    await platform.deploy(spec(app, stop_grace_seconds=0.5), environment={"DEAF": "1"})
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await platform.scale(0)
    assert loop.time() - begun >= 0.5
    assert processes_of(platform.state) == []


async def test_remove_takes_every_process_and_file(platform: Platform, app: Path) -> None:
    deployed = await platform.deploy(spec(app))
    child = await call(deployed.url, "/child", {})
    assert is_running(child)
    await platform.remove()
    assert not is_running(child)
    assert await platform.services() == []
    assert list((platform.state / "services").iterdir()) == []
    await platform.remove()


async def test_a_cancelled_deploy_leaves_nothing(platform: Platform, app: Path) -> None:
    ill = HealthCheck(path="/nowhere-here", start_period_seconds=60, timeout_seconds=0.2)
    request = deploy_request(spec(app, health=ill))
    await platform.process.begin("deploy", request)
    await eventually(lambda: bool(processes_of(platform.state)), seconds=10, what="a process")
    assert (await platform.process.cancel(request.id)).state == "cancelled"
    assert processes_of(platform.state) == []
    assert await platform.services() == []


async def test_bad_requests_name_the_field(platform: Platform, app: Path, tmp_path: Path) -> None:
    async def field(what: object, **changes: object) -> str | None:
        return (await platform.process.fails("deploy", deploy_request(what, **changes))).field  # type: ignore[arg-type]

    command = ("python", "-m", "app")
    assert await field(spec(app, artifact=Artifact(directory=str(app)))) == "spec.artifact.command"
    assert await field(spec(app, artifact=Artifact(command=command))) == "spec.artifact"
    assert await field(spec(app, artifact=Artifact(type="image", image="x"))) == "spec.artifact.type"
    gone = Artifact(directory=str(tmp_path / "gone"), command=command)
    assert await field(spec(app, artifact=gone)) == "spec.artifact.directory"
    assert await field(spec(app, artifact=Artifact(directory="app", command=command))) == "spec.artifact.directory"
    assert await field(spec(app), space="elsewhere") == "space"
    assert await field(spec(app), service="../up") == "service"
    assert await field(spec(app), environment={"A=B": "c"}) == "environment.A=B"
    twice = ScaleService(id=new_id(), instance=INSTANCE, service="web", replicas=2)
    assert (await platform.process.fails("scale", twice)).field == "replicas"
    assert await platform.services() == []
    assert list((platform.state / "services").iterdir()) == []


async def test_a_repeated_request_gets_the_same_answer_after_a_restart(platform: Platform, app: Path) -> None:
    request = deploy_request(spec(app))
    deployed = await platform.process.run("deploy", request, Deployed)
    await platform.stop()
    await platform.start()
    outcome: Outcome = await platform.process.begin("deploy", request)
    assert convert(outcome.result, Deployed) == deployed
    removal = RemoveService(id=new_id(), instance=INSTANCE, service="web")
    await platform.process.run("remove", removal, Done)
