"""PostgreSQL and the S3 server of a site, as the brokers meet them."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from hub.stack.servers.postgres import postgres_bin_dir
from hub.stack.supervisor import Supervisor
from tests.patience import patience
from tests.servers import RunningPostgres, RunningS3, run_postgres, run_s3


def superuser(running: RunningPostgres, **other: Any) -> psycopg.Connection[Any]:
    server = running.server
    settings = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": running.password,
        "dbname": "postgres",
    }
    return psycopg.connect(**{**settings, **other})


async def test_postgres_18_asks_everybody_for_a_password(postgres_server: RunningPostgres) -> None:
    with superuser(postgres_server) as connection:
        row = connection.execute(
            "select current_setting('server_version_num')::int / 10000, current_setting('fsync'),"
            " current_setting('unix_socket_directories'), current_setting('listen_addresses')"
        ).fetchone()
    assert row is not None
    assert row[:2] == (18, "on")
    assert row[3] == "127.0.0.1"
    for host in (postgres_server.server.host, row[2]):
        with pytest.raises(psycopg.OperationalError, match="password"):
            superuser(postgres_server, host=host, password="wrong")
    with superuser(postgres_server, host=row[2]) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


async def test_the_password_is_readable_by_its_owner_only(postgres_server: RunningPostgres) -> None:
    assert stat.S_IMODE(postgres_server.server.password_file.stat().st_mode) == 0o600


async def test_the_tools_of_the_broker_are_where_the_server_says(postgres_server: RunningPostgres) -> None:
    for program in ("pg_dump", "pg_restore", "pg_basebackup", "psql"):
        assert os.access(postgres_server.server.bin_dir / program, os.X_OK), program


async def test_postgres_that_is_killed_comes_back_with_its_data(tmp_path: Path) -> None:
    async with run_postgres(tmp_path) as running:
        with superuser(running, autocommit=True) as connection:
            connection.execute("create table kept as select 42 as answer")
        first = running.supervisor.states["postgres"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)

        await until(lambda: replaced(running.supervisor, "postgres", first))
        with superuser(running) as connection:
            assert connection.execute("select answer from kept").fetchone() == (42,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a directory to the server's user")
async def test_as_root_postgres_runs_below_a_home_that_its_user_cannot_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    async with run_postgres(closed / "home") as running:
        pid = running.supervisor.states["postgres"].pid
        assert pid is not None
        owner = Path(f"/proc/{pid}").stat().st_uid
        assert owner != 0
        assert pwd.getpwuid(owner).pw_name in ("postgres", "nobody")
        with superuser(running, autocommit=True) as connection:
            connection.execute("create database made")
        await running.restart()
        with superuser(running, dbname="made") as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def replaced(supervisor: Supervisor, part: str, pid: int) -> bool:
    """Whether another process runs for the part and is ready."""
    state = supervisor.states[part]
    return state.phase == "ready" and state.pid != pid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a directory to the server's user")
async def test_as_root_postgres_runs_from_an_installation_that_its_user_cannot_enter(tmp_path: Path) -> None:
    installation = postgres_bin_dir().parent
    package = tmp_path / "closed" / installation.parent.name
    shutil.copytree(installation, package / installation.name, symlinks=True)
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    shutil.copytree(libraries, package.with_name(libraries.name), symlinks=True)
    (tmp_path / "closed").chmod(0o700)
    async with run_postgres(tmp_path / "home", bin_dir=package / installation.name / "bin") as running:
        pid = running.supervisor.states["postgres"].pid
        staged = Path(f"/proc/{pid}/exe").resolve()
        assert not staged.is_relative_to(tmp_path)
        await running.restart()
        with superuser(running) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    assert not staged.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user every directory of one's own is reachable")
async def test_as_root_postgres_runs_in_a_home_that_everybody_can_enter() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        async with run_postgres(home) as running:
            with superuser(running) as connection:
                row = connection.execute("show data_directory").fetchone()
            assert row == (str(home / "postgres" / "data"),)


async def until(true: Callable[[], bool], *, within: float = 20.0) -> None:
    """Look again and again until it is so; fail at the deadline."""
    deadline = asyncio.get_running_loop().time() + patience(within)
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "did not come true in time"
        await asyncio.sleep(0.05)


def client(kind: str, running: RunningS3, *, key: str | None = None, secret: str | None = None) -> Any:
    return boto3.client(
        kind,
        endpoint_url=running.server.endpoint,
        region_name=running.server.region,
        aws_access_key_id=key or running.access_key,
        aws_secret_access_key=secret or running.secret_key,
        config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
    )


@pytest.fixture
def admin(s3_server: RunningS3) -> Iterator[Any]:
    made = client("s3", s3_server)
    yield made
    made.close()


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


async def test_a_versioned_bucket_keeps_every_version(admin: Any) -> None:
    admin.create_bucket(Bucket="versions")
    admin.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    for number in range(3):
        admin.put_object(Bucket="versions", Key="a/b", Body=b"%d" % number)
    listed = admin.list_object_versions(Bucket="versions")["Versions"]
    bodies = [
        admin.get_object(Bucket="versions", Key="a/b", VersionId=entry["VersionId"])["Body"].read() for entry in listed
    ]
    assert sorted(bodies) == [b"0", b"1", b"2"]
    assert [entry["IsLatest"] for entry in listed] == [True, False, False]


async def test_an_identity_with_chosen_keys_reaches_its_bucket_only(s3_server: RunningS3, admin: Any) -> None:
    for bucket in ("mine", "theirs"):
        admin.create_bucket(Bucket=bucket)
    iam = client("iam", s3_server)
    key, secret = "CHOSENBYTHEBROKER01", "a-secret-chosen-by-the-broker-0123456789"

    def choose(params: dict[str, Any], **_: Any) -> None:
        params["body"].update(AccessKeyId=key, SecretAccessKey=secret)

    iam.meta.events.register("before-call.iam.CreateAccessKey", choose)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"],
                "Resource": ["arn:aws:s3:::mine", "arn:aws:s3:::mine/*"],
            }
        ],
    }
    iam.create_user(UserName="app")
    iam.put_user_policy(UserName="app", PolicyName="own", PolicyDocument=json.dumps(policy))
    iam.create_access_key(UserName="app")
    with pytest.raises(ClientError) as again:
        iam.create_access_key(UserName="app")
    assert code(again) == "EntityAlreadyExists"
    scoped = client("s3", s3_server, key=key, secret=secret)
    scoped.put_object(Bucket="mine", Key="x", Body=b"1")
    assert scoped.get_object(Bucket="mine", Key="x")["Body"].read() == b"1"
    assert [bucket["Name"] for bucket in scoped.list_buckets()["Buckets"]] == ["mine"]
    refusals: list[Callable[[], Any]] = [
        lambda: scoped.put_object(Bucket="theirs", Key="x", Body=b"1"),
        lambda: scoped.list_objects_v2(Bucket="theirs"),
        lambda: scoped.create_bucket(Bucket="another"),
    ]
    for refused in refusals:
        with pytest.raises(ClientError) as denied:
            refused()
        assert code(denied) == "AccessDenied"
    iam.delete_access_key(UserName="app", AccessKeyId=key)
    with pytest.raises(ClientError):
        scoped.get_object(Bucket="mine", Key="x")
    iam.delete_user_policy(UserName="app", PolicyName="own")
    iam.delete_user(UserName="app")
    scoped.close()
    iam.close()


@pytest.mark.full
async def test_more_buckets_than_the_default_has_volumes_for(admin: Any) -> None:
    for number in range(12):
        admin.create_bucket(Bucket=f"many-{number}")
        admin.put_object(Bucket=f"many-{number}", Key="x", Body=b"1")


async def test_the_other_ports_serve_no_object_without_a_key(s3_server: RunningS3, admin: Any) -> None:
    admin.create_bucket(Bucket="private")
    admin.put_object(Bucket="private", Key="x", Body=b"1")
    argv = Path(f"/proc/{s3_server.supervisor.states['s3'].pid}/cmdline").read_text().split("\0")
    port = next(int(flag.partition("=")[2]) for flag in argv if flag.startswith("-filer.port="))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /buckets/private/x HTTP/1.0\r\n\r\n")
    status = (await reader.readline()).split()[1]
    writer.close()
    await writer.wait_closed()
    assert status == b"401"
    assert not any(secret in " ".join(argv) for secret in (s3_server.secret_key, s3_server.access_key))


@pytest.mark.full
async def test_what_was_acknowledged_outlives_a_sigkill(tmp_path: Path) -> None:
    async with run_s3(tmp_path) as running:
        s3 = client("s3", running)
        s3.create_bucket(Bucket="kept")
        s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        for number in range(200):
            s3.put_object(Bucket="kept", Key=f"k{number}", Body=b"%d" % number * 1000)
        first = running.supervisor.states["s3"].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: replaced(running.supervisor, "s3", first))
        for number in range(200):
            body = s3.get_object(Bucket="kept", Key=f"k{number}")["Body"].read()
            assert body == b"%d" % number * 1000
        s3.close()
    assert list(Path("/tmp").glob(f"seaweedfs-*-{running.server.endpoint.rpartition(':')[2]}.sock")) == []
