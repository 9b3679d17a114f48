"""The programs in examples/outsiders, run as their README says, with credentials that let them do just that."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from hub.client import Client, ForbiddenError, SyncClient, read_context
from tests.e2e.main_job.stranger import Schemas
from tests.e2e.stack import ROOT, Ended, Stack, until

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

EXAMPLES = ROOT / "examples" / "outsiders"
NODE = EXAMPLES / "node"
SAVED = "calque.event.image.saved.v1"
PUBLISHED = ROOT / "schemas" / "generated" / "json"
APP = "outside"


@dataclass(frozen=True)
class Outside:
    """Credentials of a publisher and of a subscriber, and an app that may be saved."""

    stack: Stack
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def publisher(self) -> Path:
        return self.directory / "ci.json"

    @property
    def subscriber(self) -> Path:
        return self.directory / "billing.json"

    async def run(self, *command: str | Path, seconds: float = 90.0) -> Ended:
        """Run a program, and wait for it."""
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.directory,
            env={**os.environ, **self.environment},
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"{command} did not end within {seconds:.0f} s") from None
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def must(self, *command: str | Path) -> str:
        """What a program printed, which has to succeed and to have nothing to complain of."""
        ended = await self.run(*command)
        assert (ended.code, ended.stderr) == (0, ""), ended
        return ended.stdout

    async def saved_so_far(self) -> int:
        """How many images the record says were saved: others use this stack too."""
        async with await Client.connect(read_context(self.subscriber)) as client:
            return len([each async for each in client.events(after=0) if each.envelope.type == SAVED])

    @asynccontextmanager
    async def checked(self, schemas: Schemas) -> AsyncIterator[list[str]]:
        """The types of all that is said to the hub meanwhile, each message checked against the published schemas."""
        context = json.loads((self.stack.home / "config" / "hub.json").read_text())["bus"]
        kinds: list[str] = []
        wrong: list[str] = []

        async def check(message: Msg) -> None:
            envelope = json.loads(message.data)
            kinds.append(envelope["type"])
            try:
                schemas.check(envelope)
            except Exception as error:
                wrong.append(f"{envelope['type']}: {error}")

        hub = await nats.connect(context["servers"], nkeys_seed=context["nkey_seed_file"], inbox_prefix=b"_HUB")
        try:
            for subject in ("calque.cmd.hub.ci.>", "calque.act.billing.>", "calque.qry.>"):
                await hub.subscribe(subject, cb=check)
            await hub.flush()
            yield kinds
        finally:
            await hub.close()
        assert wrong == []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outside(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Outside]:
    directory = tmp_path_factory.mktemp("outside")
    await stack.must("deploy", "hackathon", "--site", "north", "--name", APP)
    await stack.must(
        "principal", "add", "ci", "--role", "publisher", "--verb", "save", "--app", APP, "--out", str(directory)
    )
    await stack.must("principal", "add", "billing", "--role", "subscriber", "--out", str(directory))
    yield Outside(stack, directory)
    for name in ("ci", "billing"):
        await stack.must("principal", "remove", name, "--yes")
    assert (await stack.must("subscription", "list", "--principal", "billing", "-o", "json")).json == []


async def test_credentials_are_files_of_their_owner_and_say_all_that_a_client_needs(outside: Outside) -> None:
    known = json.loads(outside.publisher.read_text())
    assert known["principal"] == "ci"
    assert known["role"] == "publisher"
    assert known["inbox_prefix"] == "_INBOX.ci"
    assert stat.S_IMODE((outside.directory / known["nkey_seed_file"]).stat().st_mode) == 0o600
    listed = {each["name"]: each for each in (await outside.stack.must("principal", "list", "-o", "json")).json}
    assert listed["ci"]["verbs"] == ["instance.save"]
    assert listed["admin"]["built_in"]
    again = await outside.stack.cli("principal", "add", "ci", "--role", "viewer", "--out", str(outside.directory))
    assert again.code == 5


async def test_python_saves_and_follows_with_the_sdk_and_with_plain_nats(outside: Outside) -> None:
    before = await outside.saved_so_far()
    async with outside.checked(Schemas(PUBLISHED)) as kinds:
        saved = []
        for name in ("python_sdk/save_async.py", "python_sdk/save_sync.py", "python_plain/save.py"):
            image = f"outside-{Path(name).parent.name[-3:]}-{Path(name).stem.replace('_', '-')}"
            saved.append((await outside.must(sys.executable, EXAMPLES / name, "ci.json", APP, image)).strip())
        for name in ("python_sdk/follow_async.py", "python_sdk/follow_sync.py", "python_plain/follow.py"):
            seen = f"{Path(name).parent.name}-{Path(name).stem}.txt"
            follow = (sys.executable, EXAMPLES / name, "billing.json", seen)
            # In two runs: the second goes on where the first ended.
            printed = (await outside.must(*follow, str(before + 1))).splitlines()
            printed += (await outside.must(*follow, "2")).splitlines()
            assert printed[before:] == [f"{image} north" for image in saved]
    assert {"calque.command.hub.instance.save.v1", "calque.act.subscribe.v1", "calque.query.apps.v1"} <= set(kinds)


async def test_what_they_may_not_do_is_forbidden_at_once(outside: Outside) -> None:
    async with await Client.connect(read_context(outside.publisher)) as publisher:
        app = await publisher.app(APP)
        with pytest.raises(ForbiddenError, match="do not allow"):
            await publisher.delete(APP)
        with pytest.raises(ForbiddenError):
            await publisher.binding(APP, "ideas")
        with pytest.raises(ForbiddenError):
            await anext(publisher.events(after=0))
    async with await Client.connect(read_context(outside.subscriber)) as subscriber:
        with pytest.raises(ForbiddenError):
            await subscriber.save(app.id, name="not-mine")


async def test_the_synchronous_client_is_the_other_one_without_await(outside: Outside) -> None:
    def story() -> list[str]:
        with SyncClient.connect(read_context(outside.subscriber)) as client:
            assert client.app(APP).name == APP
            every = [event.envelope.type for event in client.events(after=0)]
            for event in client.events(after=0):
                assert event.sequence == 1
                break  # left early: closed in good order
            with client.subscribe("sync", start="first", follow=False) as events:
                assert [event.type for event in events][: len(every)] == every
                assert events.place.name == "sync"
            assert client.unsubscribe("sync")
            with pytest.raises(ForbiddenError):
                client.save(APP, name="not-mine")
        with pytest.raises(RuntimeError, match="closed"):
            client.status()
        return every

    assert await asyncio.to_thread(story)


@pytest.mark.full
async def test_a_durable_reader_that_is_killed_misses_nothing(outside: Outside) -> None:
    """Killed while events come, and again; what all runs printed together is every event in order."""
    durable = ("events", "--durable", "killed", "--from-sequence", "1", "-o", "json")
    everything = [
        each["sequence"]
        for each in map(json.loads, (await outside.stack.must("events", "-o", "json")).stdout.splitlines())
    ]
    found: list[int] = []
    context = {"CALQUE_HOME": str(outside.stack.home)}
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub.cli.main", *durable, "-f"),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **context},
        )
        assert process.stdout is not None
        for _ in range(20):
            found.append(json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["sequence"])
        process.kill()
        await process.wait()

    async def caught_up() -> bool:
        ended = await outside.stack.must(*durable)
        found.extend(json.loads(line)["sequence"] for line in ended.stdout.splitlines())
        return set(found) >= set(everything)

    await until(caught_up, seconds=120, what="all events")
    first = list(dict.fromkeys(found))
    assert first == sorted(first)
    await outside.stack.must("subscription", "delete", "killed", "--yes")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(outside: Outside) -> Path:
    """The programs in Node with what they need; installed once per lock file, outside of the tree."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    lock = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = base / "calque-tests" / f"node-{lock}"
    if not (cache / "node_modules").is_dir():
        made = outside.directory / "node-install"
        made.mkdir()
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(NODE / name, made)
        ended = await outside.run("npm", "ci", "--ignore-scripts", "--prefix", made, seconds=120.0)
        if ended.code != 0:
            pytest.skip(f"npm ci does not work here: {ended.stderr[-300:]}")
        cache.parent.mkdir(parents=True, exist_ok=True)
        if not cache.exists():
            shutil.move(made, cache)
    place = outside.directory / "node"
    place.mkdir()
    for file in NODE.glob("*.mjs"):
        shutil.copy(file, place)
    (place / "node_modules").symlink_to(cache / "node_modules")
    shutil.copy(NODE / "package.json", place)
    return place


@pytest.mark.full
async def test_node_saves_and_follows_with_plain_nats(outside: Outside, node: Path) -> None:
    before = await outside.stack.must("events", "--type", "image.saved", "-o", "json")
    images = [
        f"{each['subject'].partition('/')[2]} {each['source']}" for each in map(json.loads, before.stdout.splitlines())
    ]
    async with outside.checked(Schemas(PUBLISHED)) as kinds:
        saved = (await outside.must("node", node / "save.mjs", outside.publisher, APP, "outside-node")).strip()
        images.append(f"{saved} north")
        follow = ("node", node / "follow.mjs", outside.subscriber, outside.directory / "node.txt")
        printed = (await outside.must(*follow, "1")).splitlines()
        if len(images) > 1:
            printed += (await outside.must(*follow, str(len(images) - 1))).splitlines()
        assert printed == images
    assert {"calque.command.hub.instance.save.v1", "calque.act.subscribe.v1"} <= set(kinds)


def test_the_lock_of_the_node_example_names_no_address() -> None:
    lock = (NODE / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert "://" not in lock
    assert lock.count('"integrity": "sha512-') == 3


def test_the_plain_examples_import_nothing_of_ours() -> None:
    ours = {"hub", "site_agent", "brokers", "schemas", "bus"}
    for file in (EXAMPLES / "python_plain").glob("*.py"):
        lines = file.read_text().splitlines()
        imports = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
        assert imports
        assert not imports & ours, file
