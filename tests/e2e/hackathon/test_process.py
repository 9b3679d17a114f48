"""The sample application as a process: its environment, its end, its log, and servers that come and go."""

import asyncio
import dataclasses
import re
import socket
import sys
from pathlib import Path

from tests.e2e.hackathon.sample import (
    EXAMPLE,
    Place,
    Sample,
    answers,
    create_database,
    free_port,
    idea,
    place,
    running,
    until,
)
from tests.servers import RunningPostgres, RunningS3


async def _ended(environment: dict[str, str]) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"),
        cwd=EXAMPLE / "app",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, errors.decode()


WRONG: tuple[tuple[str, str | None], ...] = (
    *((name, None) for name in ("PORT", "IDEAS_URI", "DOCS_ENDPOINT", "DOCS_BUCKET")),
    *((name, " ") for name in ("DOCS_ACCESS_KEY", "DOCS_SECRET_KEY")),
    *(("PORT", value) for value in ("0", "65536", "http", "-1", "8080.5")),
    *(("IDEAS_URI", value) for value in ("mysql://a:pw-hidden@b/c", "postgresql://a:pw-hidden@b:x/c")),
    *(("THUMBS_PATH", value) for value in (" ", "/no/such/directory", "/etc/passwd")),
    *(("DOCS_ENDPOINT", value) for value in ("localhost:8333", "ftp://there", "http://there:x")),
)


async def test_a_wrong_variable_ends_it_with_code_2_and_one_line() -> None:
    right = {
        "PORT": "8080",
        "IDEAS_URI": "postgresql://a:b@c/d",
        "DOCS_ENDPOINT": "http://there",
        "DOCS_BUCKET": "docs",
        "DOCS_ACCESS_KEY": "key",
        "DOCS_SECRET_KEY": "secret",
    }

    async def judged(name: str, value: str | None) -> str:
        environment = {key: text for key, text in (right | {name: value}).items() if text is not None}
        code, errors = await _ended(environment)
        fine = code == 2 and errors.count("\n") == 1 and errors.startswith(f"error: {name} ")
        return "" if fine and "pw-hidden" not in errors else f"{name}={value}: {code} {errors}"

    assert set(await asyncio.gather(*(judged(name, value) for name, value in WRONG))) == {""}


async def test_a_port_in_use_ends_it_with_code_1_and_one_line(fresh_place: Place) -> None:
    with socket.create_server(("127.0.0.1", fresh_place.port)):
        code, errors = await _ended(fresh_place.environment)
    assert (code, errors.count("\n"), str(fresh_place.port) in errors) == (1, 1, True), errors


async def test_sigterm_lets_the_request_in_flight_finish(fresh_place: Place, tmp_path: Path) -> None:
    async with running(fresh_place, tmp_path / "log") as sample:
        ideas = [idea(document=b"x" * 20_000) for _ in range(200)]
        batch = asyncio.create_task(sample.post("/api/ideas:batch", {"ideas": ideas}, status=201))

        async def in_flight() -> bool:
            return bool((await sample.get("/hooks/state"))["in_flight"])

        await until(in_flight, what="the batch is in flight")
        assert await sample.terminate() == 0
        assert (await batch)["created"] == 200
    assert fresh_place.sql("SELECT count(*) FROM ideas") == [(200,)]


async def test_its_log_is_single_lines_without_secrets(fresh_place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(fresh_place, log) as sample:
        await sample.post("/api/ideas", idea(), status=201)
        fresh_place.sql("DROP TABLE ideas")
        await sample.post("/api/ideas", idea(), status=503)
        await sample.terminate()
    lines = log.read_text().splitlines()
    shape = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) .+")
    assert [line for line in lines if not shape.fullmatch(line)] == []
    assert any("POST /api/ideas 201" in line for line in lines)
    for name in ("database password", "secret key"):
        secret = fresh_place.access.bindings()[name]
        assert secret
        assert not any(secret in line for line in lines)


async def test_it_starts_before_its_database_and_becomes_healthy_with_it(
    postgres_server: RunningPostgres, s3_server: RunningS3, tmp_path: Path
) -> None:
    waiting = place(postgres_server, s3_server, create=False)
    async with running(waiting, tmp_path / "log", healthy=False) as sample:
        async with sample.http.get("/healthz") as answer:
            assert (await answer.json())["checks"] == {"postgres": "unavailable", "documents": "ok"}
        await sample.post("/api/ideas", idea(), status=503)
        create_database(postgres_server, waiting.access.s3_bucket)
        await until(lambda: answers(sample.http, 200), what="it is healthy")
        await sample.post("/api/ideas", idea(), status=201)


async def test_two_that_start_at_once_make_one_schema(fresh_place: Place, tmp_path: Path) -> None:
    port = free_port()
    access = dataclasses.replace(fresh_place.access, url=f"http://127.0.0.1:{port}")
    other = dataclasses.replace(fresh_place, access=access, port=port)
    async with running(fresh_place, tmp_path / "one") as one, running(other, tmp_path / "two") as two:
        await one.post("/api/ideas", idea(), status=201)
        assert (await two.get("/api/stats"))["count"] == 1


async def test_connections_that_were_cut_are_made_again(fresh_place: Place, tmp_path: Path) -> None:
    async with running(fresh_place, tmp_path / "log") as sample:
        await asyncio.gather(*(sample.post("/api/ideas", idea(), status=201) for _ in range(20)))
        cut = fresh_place.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert 1 <= len(cut) <= 6, "its connections are bounded"
        await until(lambda: answers(sample.http, 200), what="it is healthy again")
        for _ in range(10):
            await sample.post("/api/ideas", idea(), status=201)


async def test_a_bucket_that_refuses_is_unhealthy_and_no_row_is_stored(fresh_place: Place, tmp_path: Path) -> None:
    access = dataclasses.replace(fresh_place.access, s3_secret_key="another")
    async with running(dataclasses.replace(fresh_place, access=access), tmp_path / "log", healthy=False) as sample:
        await until(lambda: _only_documents_fail(sample), what="its schema is there")
        await sample.post("/api/ideas", idea(), status=503)
        await sample.post("/api/ideas:batch", {"ideas": [idea(), idea()]}, status=503)
        assert fresh_place.sql("SELECT count(*) FROM ideas") == [(0,)]


async def _only_documents_fail(sample: Sample) -> bool:
    async with sample.http.get("/healthz") as answer:
        found = await answer.json()
    return bool(found["checks"] == {"postgres": "ok", "documents": "unavailable"})
