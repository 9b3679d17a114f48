"""The story that the demo tells, from the template to the last trace, on a stack of its own.

Everything goes through the client SDK, as a user's program would; every claim is proved with the demo's own
client code, past Calque. The first claim that does not hold ends the story.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from hub.client import Client, OperationFailedError, Snapshot, Started, load_context
from hub.client.readiness import sites_ready
from hub.client.watching import Observer
from hub.demo.changes import change
from hub.demo.failing import StoryFailedError as StoryFailedError
from hub.demo.failing import fail
from hub.demo.load import LoadFailedError, LoadProgress, LoadReport, load
from hub.demo.proof import ProofFailedError, ProofReport, bindings_differ, prove
from hub.demo.reading import Access, UnreadableError, fingerprint, outline
from hub.demo.remains import Remains, remains
from hub.demo.webhook import Receiver
from hub.demo.writers import Bounds, History, Writers
from hub.manifest import ManifestError, load_template
from hub.stack.embedded import EmbeddedStack
from hub.stack.errors import StackError
from hub.stack.keeper import PartState
from schemas.problems import CalqueError
from schemas.queries import AppView, ImageView, OperationView
from schemas.values import TemplateRef
from schemas.webhooks import WebhookSpec

Say = Callable[[str], None]
Watching = Callable[[], AbstractContextManager[Observer]]
PartsObserver = Callable[[Mapping[str, PartState]], None]

NORTH, SOUTH = "north", "south"
BROKEN = ("unknown-service-type", "binding-to-nothing", "cycle")
WRITES_BEFORE_SAVE = 100
WRITES_AFTER_SAVE = 40
OPERATION_SECONDS = 180.0
GONE_SECONDS = 30.0
IMAGE = "ideas-frozen"
TAGS = ("demo", "with-data")
WEBHOOK, WEBHOOK_SECONDS = "tell-me", 20.0
SAVED_TYPE = "calque.event.image.saved.v1"
COMMENT = "taken while four writers kept writing"


def example_directory() -> Path:
    """The sample application: in the checkout that this program runs from, else beside this module in the wheel."""
    for candidate in (
        Path(__file__).resolve().parents[2] / "examples" / "hackathon",
        Path(__file__).parent / "hackathon",
    ):
        if (candidate / "calque.yaml").is_file():
            return candidate
    raise StoryFailedError("the sample application is missing: install calque again")


async def tell(*, say: Say, watching: Watching, parts: Callable[[Say], PartsObserver], keep: bool = False) -> float:
    """Tell it all; the seconds it took. Whatever happens, the stack is stopped and its home removed.

    Raises :class:`StoryFailedError`.
    """
    began = time.monotonic()
    example = example_directory()
    say = _timed(say, began)
    home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="calque-demo-"))
    stack = EmbeddedStack(
        home,
        sites=(NORTH, SOUTH),
        repositories={NORTH: ("filesystem",), SOUTH: ("s3",)},
        channels=False,  # the sample application has none, and this is a story to be told in a minute
        on_change=parts(lambda line: say(f"   {line}")),
    )
    try:
        say(f"0. Start a hub and two sites, {NORTH} and {SOUTH}, with their servers, in {home}")
        await stack.start()
        async with await Client.connect(load_context(home), deadline_seconds=20) as client:
            for site, brokers in stack.brokers.items():
                await sites_ready(client, sites=(site,), brokers=brokers)
            say(f"   ready after {time.monotonic() - began:.1f} s")
            say(f"   copies lie in a directory at {NORTH}, and in an S3 bucket at {SOUTH}")
            async with Receiver() as receiver:
                story = _Story(
                    client=client, stack=stack, example=example, say=say, watching=watching, receiver=receiver
                )
                await story.tell()
    except (CalqueError, StackError, LoadFailedError, ProofFailedError, UnreadableError, aiohttp.ClientError) as error:
        fail(_cause(error))
    except TimeoutError as error:
        fail(f"something took too long: {error}")
    finally:
        await asyncio.shield(asyncio.ensure_future(_clean_up(stack, home, say=say, keep=keep)))
    return time.monotonic() - began


def _timed(say: Say, began: float) -> Say:
    """``say`` with the seconds since the beginning before the heading of each chapter."""

    def timed(line: str) -> None:
        heading = line[:1].isdigit()
        say(f"\n{line}  ({time.monotonic() - began:.1f} s)" if heading else line)

    return timed


async def _clean_up(stack: EmbeddedStack, home: Path, *, say: Say, keep: bool) -> None:
    try:
        await stack.stop()
    finally:
        if keep:
            say(f"   everything is stopped; its home is kept: {home}")
        else:
            await asyncio.to_thread(shutil.rmtree, home)
            say("   everything is stopped and its home removed")


def _cause(error: Exception) -> str:
    if isinstance(error, OperationFailedError):
        return f"{error.view.kind} {error.view.name}: {error.problem.sentence()} (operation {error.view.id})"
    return str(error) or type(error).__name__


@dataclass(kw_only=True)
class _Moments:
    """When the writers were let go on: the first moment at which every thaw was seen to be confirmed."""

    thawed: float | None = None
    observer: Observer | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        view = snapshot.view
        thaws = [step for step in view.steps if step.step.action == "thaw"] if view else []
        if self.thawed is None and thaws and all(step.state == "done" for step in thaws):
            self.thawed = time.monotonic()
        if self.observer is not None:
            self.observer(snapshot)


@dataclass(kw_only=True)
class _Story:
    client: Client
    stack: EmbeddedStack
    example: Path
    say: Say
    watching: Watching
    receiver: Receiver
    clean: dict[str, Remains] = field(default_factory=dict)

    async def tell(self) -> None:
        self.clean = {site: await remains(self.stack, site) for site in (NORTH, SOUTH)}
        await self._apply()
        await self._subscribe()
        north = await self._deploy()
        loaded = await self._load(north)
        image, history, bounds = await self._save(north)
        copy = await self._run(image, "ideas-copy", SOUTH, step=5)
        held = await self._prove(north, copy, history, bounds, loaded)
        await self._change(north, copy, image, held)
        await self._remove()

    # --- the chapters

    async def _apply(self) -> None:
        self.say("1. Apply the app template; refuse broken ones")
        for name in BROKEN:
            try:
                load_template(self.example / "broken" / f"{name}.yaml")
            except ManifestError as error:
                for line in str(error).splitlines():
                    self.say(f"   refused: {line.removeprefix(str(self.example.parents[1]) + '/')}")
            else:
                fail(f"the broken template {name} was not refused")
        template = load_template(self.example / "calque.yaml")
        await self.client.apply_template(template)
        self._proved(f"{template.name} {template.version} is applied")

    async def _subscribe(self) -> None:
        await self.client.webhooks.add(WEBHOOK, WebhookSpec(url=self.receiver.url, types=("image.saved",)))
        self.receiver.trust((await self.client.webhooks.secret(WEBHOOK)).value)
        self._proved(f"a webhook will tell {self.receiver.url} of every image that is saved")

    async def _told(self, image: ImageView) -> None:
        try:
            event = await self.receiver.event(SAVED_TYPE, subject=image.id, deadline=time.monotonic() + WEBHOOK_SECONDS)
        except TimeoutError:
            fail(f"the webhook did not tell of image {image.name} within {WEBHOOK_SECONDS:.0f} s")
        if self.receiver.refused:
            fail(f"{self.receiver.refused} deliveries of the webhook were not signed as they should be")
        self._proved(f"the webhook told of it: {event['type']} from {event['source']}, signed")

    async def _deploy(self) -> AppView:
        self.say(f"2. Deploy it blank at {NORTH}")
        started = await self.client.deploy(TemplateRef(name="hackathon"), name="ideas", site=NORTH)
        await self._wait(started)
        return await self._healthy(started.target)

    async def _load(self, app: AppView) -> LoadReport:
        self.say("3. Load every text file of Python's standard library as an idea with its document, and votes")
        told = time.monotonic()

        def progress(now: LoadProgress) -> None:
            nonlocal told
            if time.monotonic() - told > 2:
                told = time.monotonic()
                mebibytes, total = now.bytes / 1024**2, now.total_bytes / 1024**2
                self.say(f"   {now.ideas} of {now.total_ideas} ideas, {mebibytes:.1f} of {total:.1f} MiB")

        report = await load(url=_url(app), progress=progress)
        if report.ideas < 1000:
            fail(f"only {report.ideas} files were found to load")
        size = report.bytes / 1024**2
        self._proved(f"{report.ideas} ideas, {size:.1f} MiB, {report.votes} votes in {report.seconds:.1f} s")
        return report

    async def _save(self, app: AppView) -> tuple[ImageView, History, tuple[Bounds, ...]]:
        self.say("4. Save it as an image while four writers keep writing")
        writers = Writers(url=_url(app))
        async with writers:
            await writers.acknowledged(WRITES_BEFORE_SAVE, deadline=time.monotonic() + 30)
            began = time.monotonic()
            started = await self.client.save(app.id, name=IMAGE, tags=TAGS, comment=COMMENT)
            moments = _Moments()
            await self._wait(started, moments=moments)
            ended = time.monotonic()
            so_far = writers.history.acknowledged()
            await writers.acknowledged(so_far + WRITES_AFTER_SAVE, deadline=time.monotonic() + 30)
        history = writers.history
        bounds = history.bounds(saving_began=began, thawed=moments.thawed or ended)
        image = await self.client.image(started.target)
        if (image.state, image.name, set(image.tags), image.comment) != ("saved", IMAGE, set(TAGS), COMMENT):
            fail(f"the image is {image.state}, {image.name!r}, {image.tags}, {image.comment!r}")
        if image.level != "application" or image.writers_wait_seconds is None:
            fail(f"the image reached level {image.level}, writers waited {image.writers_wait_seconds}")
        during = so_far - sum(each.least for each in bounds)
        if during <= 0:
            fail("nothing was written while the image was saved, so it proves nothing")
        self._proved(
            f"{IMAGE}: level {image.level}; writers waited {image.writers_wait_seconds * 1000:.0f} ms of the"
            f" {ended - began:.1f} s that it took, and wrote {during} ideas in the meantime"
        )
        for part in image.parts:
            self.say(f"       {part.data_service}: {part.size / 1024**2:.1f} MiB, {part.stored / 1024**2:.1f} stored")
        await self._told(image)
        return image, history, bounds

    async def _run(self, image: ImageView, name: str, site: str, *, step: int) -> AppView:
        self.say(f"{step}. Run the image at {site} as {name}")
        started = await self.client.run(image.id, name=name, site=site)
        await self._wait(started)
        return await self._healthy(started.target)

    async def _prove(
        self, north: AppView, copy: AppView, history: History, bounds: tuple[Bounds, ...], loaded: LoadReport
    ) -> str:
        self.say("6. Prove through Postgres, S3, the volume and HTTP what the copy holds; its fingerprint")
        access = await self._access(copy)
        report = await prove(access=access, history=history, bounds=bounds, loaded=loaded)
        self._judge(report)
        check = bindings_differ(await self._access(north), access, same_site=False)
        self._judge(ProofReport(checks=(check,)))
        return report.fingerprint

    async def _change(self, north: AppView, copy: AppView, image: ImageView, held: str) -> None:
        self.say(f"7. Change data at {SOUTH}; {NORTH} and the image stay as they are")
        north_access, copy_access = await self._access(north), await self._access(copy)
        before = await outline(north_access)
        await change(_url(copy))
        if await outline(north_access) != before:
            fail(f"a change at {SOUTH} changed {NORTH}")
        self._proved(f"{SOUTH} changed, {NORTH} did not")
        again = await self._run(image, "ideas-again", SOUTH, step=7)
        await self._same(again, held, "the image run a second time holds what it held at first")
        self._judge(ProofReport(checks=(bindings_differ(copy_access, await self._access(again), same_site=True),)))
        self.say(f"7. Delete {NORTH}'s app with its data")
        await self._wait(await self.client.delete(north.id))
        last = await self._run(image, "ideas-restored", NORTH, step=7)
        await self._same(last, held, f"the image outlives the app that it was saved from: run once more at {NORTH}")

    async def _remove(self) -> None:
        self.say("8. Stop and delete all")
        there = {site: (await remains(self.stack, site)).beyond(self.clean[site]) for site in (NORTH, SOUTH)}
        for site, found in there.items():
            counts = ", ".join(f"{len(names)} {kind}" for kind, names in found.items())
            self.say(f"   before, at {site}: {counts}")
            if len(found) < len(Remains.__dataclass_fields__):
                fail(f"the search for remains is blind: at {site} it found only {counts or 'nothing'}")
        apps = await self.client.apps()
        await asyncio.gather(*(self._ended(self.client.stop(app.id)) for app in apps))
        self._proved(f"{', '.join(app.name for app in apps)} are stopped")
        await asyncio.gather(*(self._ended(self.client.delete(app.id)) for app in apps))
        self._proved("and deleted with their data")
        await self._wait(await self.client.delete_image(IMAGE))
        await self.client.webhooks.remove(WEBHOOK)
        deadline = time.monotonic() + GONE_SECONDS
        while left := {
            site: more
            for site in (NORTH, SOUTH)
            if (more := (await remains(self.stack, site)).beyond(self.clean[site]))
        }:
            if time.monotonic() > deadline:
                fail(f"after everything was deleted there still are {left}")
            await asyncio.sleep(0.2)
        if apps := await self.client.apps():
            fail(f"apps are still listed: {', '.join(app.name for app in apps)}")
        if images := await self.client.images():
            fail(f"images are still listed: {', '.join(image.name for image in images)}")
        self._proved("no database, role, bucket, volume, process or repository file of theirs is left at either site")

    # --- the means

    async def _wait(self, started: Started, *, moments: _Moments | None = None) -> OperationView | None:
        if started.operation is None:
            return None
        with self.watching() as observer:
            watch: Observer = observer
            if moments is not None:
                moments.observer = observer
                watch = moments
            return await self.client.wait(started.operation, timeout=OPERATION_SECONDS, observer=watch)

    async def _ended(self, verb: Awaitable[Started]) -> None:
        """Wait without showing progress, since several operations run at once."""
        started = await verb
        if started.operation is not None:
            await self.client.wait(started.operation, timeout=OPERATION_SECONDS)

    async def _healthy(self, instance: str) -> AppView:
        app = await self.client.app(instance)
        timeout = aiohttp.ClientTimeout(total=20)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{_url(app)}/healthz") as answer,
        ):
            if answer.status != 200 or app.state != "running":
                fail(f"{app.name} is {app.state}, and its health check answers {answer.status}")
        self._proved(f"{app.name} is healthy at {app.site}: {app.url}")
        return app

    async def _access(self, app: AppView) -> Access:
        ideas = await self.client.binding(app.id, "ideas")
        docs = await self.client.binding(app.id, "docs")
        thumbs = await self.client.binding(app.id, "thumbs")
        bucket = {**docs.attributes, **{name: secret.value for name, secret in docs.secrets.items()}}
        return Access(
            url=_url(app),
            postgres_uri=ideas.secrets["uri"].value,
            s3_endpoint=bucket["endpoint"],
            s3_bucket=bucket["bucket"],
            s3_access_key=bucket["access_key"],
            s3_secret_key=bucket["secret_key"],
            s3_region=bucket.get("region", "us-east-1"),
            thumbs_path=thumbs.attributes["path"],
        )

    async def _same(self, app: AppView, held: str, words: str) -> None:
        if await fingerprint(await self._access(app)) != held:
            fail(f"{app.name} at {app.site} does not hold what the first copy held")
        self._proved(words)

    def _judge(self, report: ProofReport) -> None:
        for line in report.lines():
            self.say(f"   {line}")
        report.require()

    def _proved(self, what: str) -> None:
        self.say(f"   ok   {what}")


def _url(app: AppView) -> str:
    if not app.url:
        fail(f"{app.name} at {app.site} has no address")
    return app.url
