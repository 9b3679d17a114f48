"""The control plane as processes of the test, and a node that kwok keeps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.integration.filesystem.certificates import Authority

Object = dict[str, Any]

NODE = "kwok-1"
STAGES = Path(__file__).with_name("stages.yaml")
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.1


class RealCluster:
    """``start`` first, ``stop`` last. All state lies in ``directory``."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._running: list[asyncio.subprocess.Process] = []
        self._admin = secrets.token_hex(16)
        self._session: aiohttp.ClientSession | None = None
        self.url = f"https://127.0.0.1:{_free_port()}"
        self.authority = Authority(directory)

    # --- life

    async def start(self) -> None:
        etcd = f"http://127.0.0.1:{_free_port()}"
        await self._run(
            "etcd",
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{_free_port()}",
            "--unsafe-no-fsync",
        )
        identity = self.authority.issue("127.0.0.1")
        key = self._directory / "service-accounts.key"
        key.write_bytes(
            rsa.generate_private_key(65537, 2048).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        tokens = self._directory / "tokens.csv"
        tokens.write_text(f'{self._admin},admin,admin,"system:masters"\n')
        await self._run(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.url.rpartition(':')[2]}",
            f"--tls-cert-file={identity.certificate}",
            f"--tls-private-key-file={identity.key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://calque.invalid",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        context = ssl.create_default_context(cafile=str(self.authority.path))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), headers={"Authorization": f"Bearer {self._admin}"}
        )
        await self._until_ready()
        admin = self.kubeconfig(self._admin, self._directory / "admin.json")
        await self._run(
            "kube-controller-manager",
            f"--kubeconfig={admin}",
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={self.authority.path}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
        )
        await self._run("kube-scheduler", f"--kubeconfig={admin}", "--leader-elect=false", "--secure-port=0")
        await self.post("/api/v1/nodes", _node())
        await self._run("kwok", f"--kubeconfig={admin}", "--manage-all-nodes=true", f"--config={STAGES}")

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
        for process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    def kubeconfig(self, token: str, path: Path) -> Path:
        """A file by which somebody with ``token`` reaches the API server."""
        cluster = {"server": self.url, "certificate-authority": str(self.authority.path)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "real",
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": "user"}}],
            "clusters": [{"name": "real", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
        }
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path

    async def token(self, namespace: str, account: str) -> str:
        """A token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        made = await self.post(path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
        return str(made["status"]["token"])

    # --- requests of the administrator

    async def get(self, path: str) -> Object:
        return await self._ask("GET", path)

    async def post(self, path: str, body: Object) -> Object:
        return await self._ask("POST", path, body)

    async def delete(self, path: str) -> Object:
        return await self._ask("DELETE", path)

    async def merge(self, path: str, body: Object, *, manager: str = "somebody") -> Object:
        return await self._ask("PATCH", f"{path}?fieldManager={manager}", body, content="application/merge-patch+json")

    async def items(self, path: str) -> list[Object]:
        found: list[Object] = (await self.get(path))["items"]
        return found

    async def apply_file(self, path: Path) -> None:
        """What a manifest names, made."""
        for body in yaml.safe_load_all(path.read_text()):
            group, _, version = body["apiVersion"].rpartition("/")
            prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
            namespace = body["metadata"].get("namespace")
            place = f"/namespaces/{namespace}" if namespace else ""
            await self.post(f"{prefix}{place}/{body['kind'].lower()}s", body)

    async def _ask(
        self, method: str, path: str, body: Object | None = None, *, content: str = "application/json"
    ) -> Object:
        assert self._session is not None
        data = json.dumps(body) if body is not None else None
        async with self._session.request(
            method, self.url + path, data=data, headers={"Content-Type": content}
        ) as response:
            found: Object = await response.json()
            assert response.status < 400, f"{method} {path}: {response.status} {found.get('message')}"
            return found

    async def _until_ready(self) -> None:
        assert self._session is not None
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self._session.get(self.url + "/readyz") as response:
                        if response.status == 200:
                            return
                for process in self._running:
                    assert process.returncode is None, self.said()
                await asyncio.sleep(_POLL_SECONDS)

    def said(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(self._directory.glob("*.log")))

    async def _run(self, program: str, *arguments: str) -> None:
        with (self._directory / f"{program}.log").open("wb") as log:
            self._running.append(
                await asyncio.create_subprocess_exec(
                    str(self._programs / program), *arguments, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
                )
            )


def _node() -> Object:
    labels = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    room = {"cpu": "8", "memory": "16Gi", "pods": "50"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"allocatable": room, "capacity": room},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
