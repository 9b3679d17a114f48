"""The app services of these tests, and how they are deployed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

from schemas.artifact_digest import tree_digest
from schemas.brokers import (
    Deployed,
    DeployService,
    DescribeServices,
    Done,
    RemoveService,
    ScaleService,
    ServicesDescription,
    ServiceStatus,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from schemas.values import Artifact, HealthCheck, Hook, Hooks, ServiceSpec
from tests.integration.broker_process import BrokerProcess
from tests.patience import PATIENCE_SECONDS, patience

APP = """
import json, os, signal, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if os.environ.get("SAY"):
    print(os.environ["SAY"])
if os.environ.get("EXIT"):
    sys.exit(int(os.environ["EXIT"]))
if os.environ.get("DEAF"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ticks, called = [], []

def tick():
    while True:
        ticks.append(time.monotonic())
        del ticks[:-4000]
        threading.Event().wait(0.01)

class App(BaseHTTPRequestHandler):
    def answer(self, status, data):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            self.answer(500 if os.path.exists(os.environ["HOME"] + "/ill") else 200, "health")
        elif self.path == "/env":
            self.answer(200, {"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv, "pid": os.getpid(),
                              "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")), "sid": os.getsid(0)})
        elif self.path == "/ticks":
            self.answer(200, ticks)
        elif self.path == "/called":
            self.answer(200, called)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "null")
        called.append([self.path, body])
        if self.path == "/exit":
            self.answer(200, "bye")
            os._exit(body)
        elif self.path == "/say":
            print(body)
            self.answer(200, "said")
        elif self.path == "/child":
            child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
            self.answer(200, child.pid)
        elif self.path == "/shy":
            child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], env={})
            self.answer(200, child.pid)
        elif self.path == "/refuse":
            self.answer(409, "writers are busy")
        elif self.path == "/slow":
            threading.Event().wait(5)
            self.answer(200, "late")
        else:
            self.answer(200, "done")

    def log_message(self, *args):
        pass

threading.Thread(target=tick, daemon=True).start()
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), App).serve_forever()
"""
WORKER = "import os, signal\nprint('working as', os.environ.get('ROLE', 'nobody'), flush=True)\nsignal.pause()\n"
INSTANCE = "instance-1"


def write_app(directory: Path, *, extra: str = "") -> Path:
    """The artifact's directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "app.py").write_text(APP + extra)
    (directory / "worker.py").write_text(WORKER)
    return directory


def spec(directory: Path, **changes: Any) -> ServiceSpec:
    """The test app with an HTTP health check."""
    values: dict[str, Any] = {
        "artifact": Artifact(directory=str(directory), command=("python", "-m", "app"), digest=tree_digest(directory)),
        "port": 8080,
        "health": HealthCheck(path="/health", interval_seconds=0.1, start_period_seconds=20),
        "hooks": Hooks(quiesce=Hook(http="POST /quiesce"), thaw=Hook(http="POST /thaw")),
        "stop_grace_seconds": 3.0,
        **changes,
    }
    return ServiceSpec(**values)


def deploy_request(what: ServiceSpec, *, service: str = "web", **changes: Any) -> DeployService:
    secrets = {name: Secret(value=value) for name, value in changes.pop("secrets", {}).items()}
    values: dict[str, Any] = {"id": new_id(), "labels": {"instance_name": "shop"}, **changes}
    return DeployService(instance=INSTANCE, service=service, spec=what, secret_environment=secrets, **values)


class Platform:
    """The broker as its tests use it."""

    def __init__(self, process: BrokerProcess) -> None:
        self.process = process
        self.state = process.directory / "state"
        self.running = False

    async def start(self) -> None:
        await self.process.start()
        self.running = True

    async def stop(self, *, number: signal.Signals = signal.SIGTERM) -> int:
        self.running = False
        return await self.process.stop(number=number)

    async def kill(self) -> None:
        self.running = False
        await self.process.kill()

    async def deploy(self, what: ServiceSpec, **changes: Any) -> Deployed:
        return await self.process.run("deploy", deploy_request(what, **changes), Deployed)

    async def scale(self, replicas: int, *, service: str = "web") -> None:
        request = ScaleService(id=new_id(), instance=INSTANCE, service=service, replicas=replicas)
        await self.process.run("scale", request, Done)

    async def remove(self, *, service: str = "web") -> None:
        await self.process.run("remove", RemoveService(id=new_id(), instance=INSTANCE, service=service), Done)

    async def services(self) -> list[ServiceStatus]:
        return list((await self.process.ask("describe", DescribeServices(), ServicesDescription)).services)

    async def one(self, service: str = "web") -> ServiceStatus:
        [found] = [status for status in await self.services() if status.service == service]
        return found

    async def until(self, condition: Any, *, what: str, service: str = "web", seconds: float = 20) -> ServiceStatus:
        """The service's status, once ``condition`` holds for it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience(seconds)
        while not condition(status := await self.one(service)):
            assert loop.time() < deadline, f"{what}: not within {patience(seconds)} s; {status}"
            await asyncio.sleep(0.02)
        return status


async def call(url: str | None, path: str, body: Any = None) -> Any:
    """What the app answers; a POST when there is a body."""

    def request() -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{url}{path}", data=data, timeout=PATIENCE_SECONDS) as response:
            return json.load(response)

    return await asyncio.to_thread(request)


def is_running(pid: int | None) -> bool:
    """Whether ``pid`` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def processes_of(state: Path) -> list[int]:
    """All living processes that were started for services of this state directory."""
    mark = b"HOME=" + os.fsencode(state)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_running(int(entry.name)):
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(variable.startswith(mark) for variable in variables):
                found.append(int(entry.name))
    return found
