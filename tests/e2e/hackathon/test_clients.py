"""The demo's clients against the sample application: what they load, write and log, and what the proof sees."""

import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
import pytest_asyncio

from hub.demo.load import LoadFailedError, LoadProgress, LoadReport, library_files, load
from hub.demo.proof import Check, ProofFailedError, bindings_differ, prove
from hub.demo.reading import UnreadableError, contents, fingerprint
from hub.demo.writers import Bounds, History, Writers, history_from
from tests.e2e.hackathon.sample import Place, Sample, idea, place, running
from tests.servers import RunningPostgres, RunningS3

Sabotage = Callable[[Place], object]


@pytest.mark.full
async def test_the_whole_library_is_loaded(sample: Sample) -> None:
    files = library_files()
    assert len(files) > 1000
    seen: list[LoadProgress] = []
    report = await load(url=sample.access.url, files=files, progress=seen.append)
    size = sum(len(file.content) for file in files)
    assert (report.ideas, report.bytes) == (len(files), size)
    assert (seen[-1].ideas, seen[-1].bytes, seen[-1].total_bytes) == (len(files), size, size)
    stats = await sample.get("/api/stats")
    assert stats == {"count": len(files), "votes": report.votes, "documents": len(files), "bytes": size}
    assert report.votes > 100
    (await prove(access=sample.access, history=Writers(url="").history, bounds=(), loaded=report)).require()


def test_only_text_below_the_limit_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "package").mkdir()
    for name, content in {
        "a.py": b"print()",
        "package/b.txt": "grüße".encode(),
        "empty": b"",
        "site-packages/c.py": b"",
        "d.so": b"\x7fELF\0",
        "latin": b"gr\xfc\xdfe",
        "big.txt": b"x" * (256 * 1024 + 1),
    }.items():
        (tmp_path / name).write_bytes(content)
    assert [file.name for file in library_files(tmp_path)] == ["a.py", "empty", "package/b.txt"]


async def test_an_application_that_is_not_there_fails_the_load_in_words(fresh_place: Place) -> None:
    with pytest.raises(LoadFailedError, match="was not answered"):
        await load(url=fresh_place.access.url)


async def test_writers_lose_and_double_nothing_when_the_application_is_killed(
    fresh_place: Place, tmp_path: Path
) -> None:
    log = tmp_path / "writers.ndjson"
    async with running(fresh_place, tmp_path / "first") as first:
        writers = Writers(url=first.access.url, log_path=log)
        await writers.start()
        await writers.acknowledged(150, deadline=monotonic() + 60)
        first.process.kill()
        await first.process.wait()
    reached = writers.history.acknowledged()
    async with running(fresh_place, tmp_path / "second") as second:
        await writers.acknowledged(reached + 100, deadline=monotonic() + 60)
        history = await writers.stop()
        assert writers.last_problem
        (await prove(access=second.access, history=history, bounds=history.final_bounds())).require()
    assert history_from(log) == history
    for writer in history.writers:
        facts = [(entry.seq, entry.fact) for entry in history.entries if entry.writer == writer]
        expected = [(seq, fact) for seq in range(1, facts[-1][0] + 1) for fact in ("begun", "acknowledged")]
        assert facts == expected


async def test_a_log_with_a_torn_last_line_is_read_up_to_it(tmp_path: Path) -> None:
    entry = {"writer": "w", "seq": 1, "fact": "begun", "monotonic": 1.0, "wall": 2.0, "digest": "d"}
    log = tmp_path / "log"
    log.write_text(json.dumps(entry) + "\n" + json.dumps(entry)[:20])
    assert [each.seq for each in history_from(log).entries] == [1]


@dataclass(frozen=True, kw_only=True)
class Written:
    """An application with three ideas without a writer, and those of writers that have stopped."""

    sample: Sample
    history: History
    loaded: LoadReport


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def written(
    postgres_server: RunningPostgres, s3_server: RunningS3, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Written]:
    log = tmp_path_factory.mktemp("written") / "log"
    async with running(place(postgres_server, s3_server), log) as sample:
        yield await _written(sample)


@pytest.fixture
def spoilable(written: Written) -> Iterator[Written]:
    """The same, with every row and document put back afterwards."""
    at = written.sample.place
    at.sql("CREATE TABLE kept AS TABLE ideas")
    bucket = at.access.s3_bucket
    kept = {key: at.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in at.stored_keys()}
    yield written
    for key, content in kept.items():
        at.s3.put_object(Bucket=bucket, Key=key, Body=content)
    at.sql("TRUNCATE ideas; INSERT INTO ideas OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept")


async def _written(sample: Sample) -> Written:
    batch = [idea(title=f"Loaded {number}", document=b"x" * number) for number in range(3)]
    await sample.post("/api/ideas:batch", {"ideas": batch}, status=201)
    writers = Writers(url=sample.access.url, pause_seconds=0)
    await writers.start()
    await writers.acknowledged(60, deadline=monotonic() + 60)
    await writers.stop()
    loaded = LoadReport(ideas=3, bytes=3, votes=0, seconds=0.0)
    return Written(sample=sample, history=writers.history, loaded=loaded)


def _sql(statement: str) -> Sabotage:
    return lambda place: place.sql(statement)


def _lose_a_document(place: Place) -> None:
    [(key,)] = place.sql("SELECT doc_key FROM ideas WHERE writer = 'writer-2' AND seq = 3")
    place.s3.delete_object(Bucket=place.access.s3_bucket, Key=key)


def _spoil_a_document(place: Place) -> None:
    [(key,)] = place.sql("SELECT doc_key FROM ideas WHERE title = 'Loaded 2'")
    place.s3.put_object(Bucket=place.access.s3_bucket, Key=key, Body=b"xy")


_LATER = (
    "INSERT INTO ideas (id, title, text, author, doc_key, doc_digest, doc_size, writer, seq)"
    " SELECT gen_random_uuid(), title, text, author, 'ideas/later', doc_digest, doc_size, {writer}, {seq}"
    " FROM ideas WHERE writer = 'writer-1' AND seq = 1"
)


@pytest.mark.parametrize(
    ("sabotage", "broken"),
    [
        (lambda place: None, set()),
        (_lose_a_document, {"every idea has its document", "the application answers the same over HTTP"}),
        (_spoil_a_document, {"every idea has its document", "the application answers the same over HTTP"}),
        (
            _sql("DELETE FROM ideas WHERE writer = 'writer-3' AND seq = 2"),
            {"each writer is a gapless prefix", "all that was acknowledged before the save is there"},
        ),
        (
            _sql("DELETE FROM ideas WHERE writer = 'writer-3' AND seq >= 5"),
            {"all that was acknowledged before the save is there"},
        ),
        (
            _sql(
                "UPDATE ideas SET doc_digest = o.doc_digest, doc_key = 'ideas/x' FROM ideas o"
                " WHERE ideas.writer = 'writer-1' AND ideas.seq = 2 AND o.title = 'Loaded 0'"
            ),
            {
                "the writers' ideas are as they were sent",
                "every idea has its document",
                "the application answers the same over HTTP",
            },
        ),
        (
            _sql(_LATER.format(writer="'stranger'", seq=1)),
            {
                "each writer is a gapless prefix",
                "the writers' ideas are as they were sent",
                "every idea has its document",
                "the application answers the same over HTTP",
            },
        ),
        (_sql("UPDATE ideas SET votes = 7 WHERE title = 'Loaded 1'"), {"the loaded input is there"}),
    ],
    ids=[
        *("nothing", "a missing document", "a spoilt document", "a gap", "too short"),
        *("another document", "a stranger", "votes"),
    ],
)
async def test_the_proof_names_what_is_wrong(spoilable: Written, sabotage: Sabotage, broken: set[str]) -> None:
    sabotage(spoilable.sample.place)
    history = spoilable.history
    # The HTTP check compares a sample of the documents; 60-odd ideas would let a spoilt one slip by.
    report = await prove(
        access=spoilable.sample.access,
        history=history,
        bounds=history.final_bounds(),
        loaded=spoilable.loaded,
        documents_over_http=1000,
    )
    assert {check.name for check in report.checks if not check.passed} == broken, report.lines()
    if broken:
        with pytest.raises(ProofFailedError, match="FAIL"):
            report.require()
    else:
        report.require()


async def test_the_proof_sees_a_write_that_began_after_the_thaw(written: Written) -> None:
    history = written.history
    of_one = [entry for entry in history.entries if entry.writer == "writer-1"]
    thawed = next(entry.monotonic for entry in reversed(of_one) if entry.fact == "begun")
    just_before = history.bounds(saving_began=thawed - 1e-6, thawed=thawed - 1e-6)
    report = await prove(access=written.sample.access, history=history, bounds=just_before)
    assert "nothing begun after the thaw is there" in {c.name for c in report.checks if not c.passed}
    assert "each writer is a gapless prefix" in {c.name for c in report.checks if c.passed}


async def test_bounds_follow_the_moments(written: Written) -> None:
    history = written.history
    assert history.bounds(saving_began=0, thawed=0) == tuple(
        Bounds(writer=name, least=0, most=0) for name in history.writers
    )
    total = sum(bound.least for bound in history.final_bounds())
    assert total == history.acknowledged() == (await written.sample.get("/api/stats"))["count"] - 3


async def test_a_fingerprint_changes_with_the_data_and_only_then(sample: Sample) -> None:
    made = await sample.post("/api/ideas", idea(), status=201)
    first = await fingerprint(sample.access)
    assert await fingerprint(sample.access) == first
    await sample.post(f"/api/ideas/{made['id']}/votes")
    assert await fingerprint(sample.access) != first


async def test_a_place_that_cannot_be_read_says_which_and_keeps_its_secrets(shared: Sample) -> None:
    no_bucket = dataclasses.replace(shared.access, s3_secret_key="wrong")
    with pytest.raises(UnreadableError, match="bucket"):
        await contents(no_bucket)
    password, secret_key = (shared.access.bindings()[name] for name in ("database password", "secret key"))
    no_database = dataclasses.replace(
        shared.access, postgres_uri=shared.access.postgres_uri.replace(password, "wrong-pw")
    )
    with pytest.raises(UnreadableError, match="Postgres") as caught:
        await contents(no_database)
    assert "wrong-pw" not in str(caught.value)
    assert password not in repr(shared.access)
    assert secret_key not in repr(shared.access)


def test_shared_parts_of_bindings_are_named(fresh_place: Place) -> None:
    one = fresh_place.access
    other = dataclasses.replace(
        one,
        postgres_uri="postgresql://u:p@127.0.0.2:5/d",
        s3_endpoint="http://127.0.0.2:6",
        s3_bucket="b",
        s3_access_key="k",
        s3_secret_key="s",
    )
    assert bindings_differ(one, other, same_site=False).passed
    kept = dataclasses.replace(other, s3_secret_key=one.s3_secret_key, s3_endpoint=one.s3_endpoint)
    check: Check = bindings_differ(one, kept, same_site=True)
    assert (check.passed, check.found) == (False, "both use the same secret key")
    assert not bindings_differ(one, dataclasses.replace(kept, s3_secret_key="s"), same_site=False).passed
