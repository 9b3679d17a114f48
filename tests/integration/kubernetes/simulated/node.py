"""One node: pods as processes with loopback addresses of their own, probes, restarts, logs; and node ports.

A process can't have a network of its own here, so the address in ``HOST`` is the pod's instead of all addresses.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tests.integration.kubernetes.simulated.store import Object, Store, matches, now

NODE = "node-1"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
FIRST_BACK_OFF_SECONDS = 0.3
LONGEST_BACK_OFF_SECONDS = 1.0
KEPT_LINES = 1000


class Image(NamedTuple):
    """What runs in a container: files as its working directory, and the command unless the pod names one."""

    directory: Path
    command: tuple[str, ...] = ()


class NotMade(Exception):
    """A container that can't be made: the reason and the message that kubelets give."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Node:
    """Runs what is bound to it. ``second``: how long a second of probes lasts."""

    def __init__(self, store: Store, *, second: float = 0.1) -> None:
        self.images: dict[str, Image] = {}
        self.second = second
        self.sick = False
        self._store = store
        self._pods: dict[str, Pod] = {}
        self._addresses = itertools.count(random.randrange(2, 200) * 256)
        self._ports: dict[int, asyncio.Server] = {}
        self._given: set[int] = set()
        self._forwarding: set[asyncio.Task[Any]] = set()

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*(pod.end() for pod in list(self._pods.values())))
        for server in self._ports.values():
            server.close()
        for task in list(self._forwarding):
            task.cancel()

    def reconcile(self) -> None:
        """Start what is bound and not started, end what is to be deleted."""
        known = set()
        for found in self._store.all("pods"):
            uid = found["metadata"]["uid"]
            known.add(uid)
            if found["spec"].get("nodeName") != NODE:
                if "deletionTimestamp" in found["metadata"]:
                    self._store.drop("pods", found["metadata"]["namespace"], found["metadata"]["name"])
                continue
            if uid not in self._pods:
                number = next(self._addresses)
                self._pods[uid] = Pod(self, self._store, found, f"127.77.{number // 250 % 250}.{number % 250 + 1}")
            if "deletionTimestamp" in found["metadata"]:
                self._pods[uid].terminate()
        for uid in set(self._pods) - known:
            self._pods.pop(uid).kill()

    def kill(self, found: Object) -> None:
        """Without grace."""
        if pod := self._pods.pop(found["metadata"]["uid"], None):
            pod.kill()

    def log(self, found: Object, *, previous: bool) -> list[str] | None:
        pod = self._pods.get(found["metadata"]["uid"])
        if pod is None or not pod.started:
            return None
        return pod.lines_before if previous else pod.lines

    async def execute(self, found: Object, command: list[str]) -> tuple[int, bytes] | None:
        """Run a command in a pod's container; ``None`` when nothing runs there."""
        pod = self._pods.get(found["metadata"]["uid"])
        return await pod.execute(command) if pod is not None and pod.started else None

    # --- node ports

    def free_port(self) -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in self._given:
                self._given.add(port)
                return port

    async def serve_ports(self) -> None:
        """Listen at the node ports of all Services, and at no others."""
        wanted = {
            port["nodePort"]: service
            for service in self._store.all("services")
            for port in service["spec"].get("ports", ())
            if "nodePort" in port
        }
        for port in set(self._ports) - wanted.keys():
            self._ports.pop(port).close()
        for port, service in wanted.items():
            if port not in self._ports:
                selector, namespace = service["spec"]["selector"], service["metadata"]["namespace"]

                async def forward(
                    reader: asyncio.StreamReader,
                    writer: asyncio.StreamWriter,
                    selector: dict[str, str] = selector,
                    namespace: str = namespace,
                ) -> None:
                    await self._forward(reader, writer, namespace, selector)

                self._ports[port] = await asyncio.start_server(forward, "127.0.0.1", port)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, namespace: str, selector: dict[str, str]
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._forwarding.add(task)
        try:
            ready = [
                pod for pod in self._pods.values() if pod.ready and pod.namespace == namespace and pod.has(selector)
            ]
            if ready:
                there, back = await asyncio.open_connection(ready[0].address, ready[0].port)
                await asyncio.wait(
                    {asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))},
                    return_when=asyncio.ALL_COMPLETED,
                )
        except OSError:
            return
        finally:
            writer.close()
            self._forwarding.discard(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    except OSError:
        return
    finally:
        sink.close()


class Pod:
    """One pod: its container is a process, started again when it ends."""

    def __init__(self, node: Node, store: Store, found: Object, address: str) -> None:
        self._node = node
        self._store = store
        self.namespace = found["metadata"]["namespace"]
        self.name = found["metadata"]["name"]
        self.address = address
        self.spec = found["spec"]
        self.container = found["spec"]["containers"][0]
        self.port = int((self.container.get("ports") or [{"containerPort": 0}])[0]["containerPort"])
        self.labels = found["metadata"].get("labels") or {}
        self.lines: list[str] = []
        self.lines_before: list[str] = []
        self.started = False
        self.ready = False
        self._restarts = 0
        self._last: Object = {}
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._running = asyncio.create_task(self._run(), name=f"pod {self.name}")

    def has(self, selector: dict[str, str]) -> bool:
        return matches({"metadata": {"labels": self.labels}}, selector)

    def terminate(self) -> None:
        """With grace."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._terminate())

    def kill(self) -> None:
        self._running.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        self.kill()
        if self._ending is not None:
            self._ending.cancel()
        await asyncio.gather(self._running, *filter(None, [self._ending]), return_exceptions=True)
        if self._process is not None:
            await self._process.wait()

    async def execute(self, command: list[str]) -> tuple[int, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable if word in ("python", "python3") else word for word in command),
            cwd=self._image().directory,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        code = process.returncode or 0
        return code if code >= 0 else 128 - code, output

    async def _terminate(self) -> None:
        self.ready = False
        process = self._process
        self._running.cancel()
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(self.spec.get("terminationGracePeriodSeconds", 30)):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._store.drop("pods", self.namespace, self.name)

    async def _run(self) -> None:
        self._status("Pending", {"waiting": {"reason": "ContainerCreating"}})
        back_off = FIRST_BACK_OFF_SECONDS
        while True:
            try:
                image = self._image()
                command, environment = self._command(image), self._environment()
            except NotMade as wrong:
                self._status("Pending", {"waiting": {"reason": wrong.reason, "message": str(wrong)}})
                await asyncio.sleep(back_off)
                if wrong.reason == "ErrImagePull":
                    said = f"Back-off pulling image {self.container['image']!r}: {wrong}"
                    self._status("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": said}})
                    await asyncio.sleep(back_off)
                continue
            if not command:
                self._status("Running", {"running": {"startedAt": now()}}, ready=True)
                await asyncio.Event().wait()
            code = await self._live(image, command, environment)
            ended = {"exitCode": code if code >= 0 else 128 - code, "reason": "Error" if code else "Completed"}
            if self.spec.get("restartPolicy") == "Never":
                self._status("Failed" if code else "Succeeded", {"terminated": ended})
                return
            self._last = {"terminated": ended}
            self._restarts += 1
            message = f"back-off restarting failed container app in pod {self.name}"
            self._status("Running", {"waiting": {"reason": "CrashLoopBackOff", "message": message}})
            await asyncio.sleep(back_off)
            back_off = min(back_off * 2, LONGEST_BACK_OFF_SECONDS)

    async def _live(self, image: Image, command: list[str], environment: dict[str, str]) -> int:
        process = self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=image.directory,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self.started = True
        self.lines_before, self.lines = self.lines, []
        reading = asyncio.create_task(self._read(process))
        probing = asyncio.create_task(self._probe(process.pid))
        try:
            return await process.wait()
        finally:
            probing.cancel()
            self.ready = False
            await asyncio.gather(probing, reading, return_exceptions=True)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip("\n"))
            del self.lines[:-KEPT_LINES]

    async def _probe(self, pid: int) -> None:
        probe = self.container.get("readinessProbe")
        state = {"running": {"startedAt": now()}}
        failures = 0
        while True:
            wrong = await self._trouble(probe) if probe else ""
            failures = failures + 1 if wrong else 0
            if not wrong or failures >= probe["failureThreshold"]:
                self.ready = not wrong
            if wrong and not self.ready:
                self._event("Unhealthy", f"Readiness probe failed: {wrong}")
            self._status("Running", state, ready=self.ready, id=f"simulated://{pid}")
            await asyncio.sleep((probe or {}).get("periodSeconds", 10) * self._node.second)

    async def _trouble(self, probe: Object) -> str:
        try:
            if "tcpSocket" in probe:
                _, writer = await asyncio.open_connection(self.address, self.port)
                writer.close()
                return ""
            timeout = aiohttp.ClientTimeout(total=probe["timeoutSeconds"])
            url = f"http://{self.address}:{self.port}{probe['httpGet']['path']}"
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                return "" if answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            return str(error) or "timeout"

    def _image(self) -> Image:
        name = self.container["image"]
        if name == PAUSE_IMAGE:
            return Image(Path("/"))
        if name != name.lower():
            raise NotMade("InvalidImageName", f"couldn't parse image name {name!r}")
        if name not in self._node.images:
            raise NotMade("ErrImagePull", f"failed to pull and unpack image {name!r}: not found")
        return self._node.images[name]

    def _command(self, image: Image) -> list[str]:
        command = list(self.container.get("command") or image.command)
        if command and command[0] in ("python", "python3"):
            command[0] = sys.executable
        return command

    def _environment(self) -> dict[str, str]:
        made = {"PATH": os.defpath, "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}
        for entry in self.container.get("env") or ():
            made[entry["name"]] = self._value(entry)
        if "HOST" in made:
            made["HOST"] = self.address
        return made

    def _value(self, entry: Object) -> str:
        if "value" in entry:
            return str(entry["value"])
        how, reference = next(iter(entry["valueFrom"].items()))
        plural = {"secretKeyRef": "secrets", "configMapKeyRef": "configmaps"}[how]
        found = self._store.get(plural, self.namespace, reference["name"])
        if found is None:
            raise NotMade("CreateContainerConfigError", f'{plural} "{reference["name"]}" not found')
        if reference["key"] not in found["data"]:
            raise NotMade("CreateContainerConfigError", f"couldn't find key {reference['key']} in {plural}")
        value = str(found["data"][reference["key"]])
        return b64decode(value).decode() if plural == "secrets" else value

    def _status(self, phase: str, state: Object, *, ready: bool = False, id: str = "") -> None:
        found = self._store.get("pods", self.namespace, self.name)
        if found is None or found["metadata"]["uid"] is None:
            return
        status = found.setdefault("status", {})
        status |= {"phase": phase, "podIP": self.address}
        status.setdefault("startTime", now())
        status["containerStatuses"] = [
            {
                "name": self.container["name"],
                "ready": ready,
                "restartCount": self._restarts,
                "state": state,
                "lastState": self._last,
                "image": self.container["image"],
                "imageID": f"{self.container['image']}@sha256:{'0' * 64}",
                **({"containerID": id} if id else {}),
            }
        ]
        self._store.change("pods", self.namespace, found)

    def _event(self, reason: str, message: str) -> None:
        found = self._store.get("pods", self.namespace, self.name)
        if found is None:
            return
        name = f"{self.name}-{reason.lower()}"
        body = {
            "metadata": {"name": name},
            "involvedObject": {"kind": "Pod", "name": self.name, "uid": found["metadata"]["uid"]},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
        }
        known = self._store.get("events", self.namespace, name)
        if known is None:
            self._store.add("events", self.namespace, body)
        else:
            self._store.change("events", self.namespace, {**known, "message": message})
