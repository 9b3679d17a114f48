"""The site agent's process: journal, saga runner, commands, watches, heartbeat. One per site (``bus.hosting``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial

from bus.advisories import Advisories
from bus.connection import Bus
from bus.ending import end
from bus.events import EventStore
from bus.hosting import run_process
from bus.letters import LetterBox
from bus.metrics import MEASURES, Sample, bus_samples
from bus.streams import ADVISORIES, COMMANDS, JOBS, JOBS_CONSUMER, LETTERS_CONSUMER, set_up_site
from bus.work import SITE_PREFIX, WorkQueue
from schemas.brokers import SERVICE_VERSION
from schemas.envelope import timestamp, wrap
from schemas.ids import new_id
from schemas.repositories import AskSigners, SignersView
from schemas.room import Fill
from schemas.signals import Beat
from schemas.subjects import HUB_BEAT, beat, outbox, site_ask
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.condition import Conditions
from site_agent.adapters.journal import Journal
from site_agent.adapters.sealing import SealKey
from site_agent.adapters.secret_store import SecretStore
from site_agent.application.actions import Actions
from site_agent.application.answers import Answers
from site_agent.application.bulk import Bulk
from site_agent.application.commands import CommandHandler
from site_agent.application.existing_watch import EXISTING_SECONDS, ExistingWatch
from site_agent.application.grants import Grants
from site_agent.application.hub_watch import HubWatch
from site_agent.application.letter_answers import LetterAnswers
from site_agent.application.masking_answers import MaskingAnswers
from site_agent.application.repository_answers import RepositoryAnswers
from site_agent.application.repository_watch import RepositoryWatch
from site_agent.application.runner import Runner
from site_agent.application.site_secrets import SiteSecrets
from site_agent.application.surroundings import (
    DISCOVERY_SECONDS,
    FIRST_DISCOVERIES,
    FIRST_DISCOVERY_SECONDS,
    HEALTH_SECONDS,
    BrokerWatch,
    HealthWatch,
    announcement,
    for_ever,
)
from site_agent.domain.site import Draft, Site
from site_agent.settings import AgentSettings

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
CONNECT_SECONDS = 30.0
COMMANDS_AT_ONCE = 16
REPOSITORY_SECONDS = 1.0
"""How often it is looked whether it is time to look at the repositories."""
ASK_SECONDS = 5.0
HUB_LOOK_SECONDS = 5.0


class Heart:
    """Sends the site's heartbeat."""

    def __init__(self, bus: Bus, *, site: str, conditions: Conditions) -> None:
        self._bus = bus
        self._site = site
        self._conditions = conditions
        self._run = new_id()
        self._sequence = 0

    async def beat(self) -> None:
        """One beat."""
        self._sequence += 1
        data = Beat(
            sender=self._site,
            run=self._run,
            sequence=self._sequence,
            interval_seconds=BEAT_SECONDS,
            version=SERVICE_VERSION,
            condition=self._conditions.latest,
        )
        envelope = wrap(data, id=new_id(), source=self._site, time=timestamp(datetime.now(UTC)))
        await self._bus.publish(beat(self._site), envelope)


@contextlib.asynccontextmanager
async def agent(settings: AgentSettings) -> AsyncIterator[asyncio.Future[None]]:
    """A running agent: everything that the journal says is under way is taken up again.

    Yields what ends when a part of it fell over: an agent that no longer hears commands must not look alive.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    bus = await Bus.connect(settings.bus.connection(), deadline_seconds=CONNECT_SECONDS)
    try:
        agent = _Agent(bus, settings)
        with MEASURES.collecting(agent.collect):
            async with agent.running() as failed:
                yield failed
    finally:
        await bus.close()


class _Agent:
    """Wires the parts together."""

    def __init__(self, bus: Bus, settings: AgentSettings) -> None:
        self._bus = bus
        self._settings = settings
        self._seal_key = SealKey(settings.seal_key_file)
        policy = settings.repositories.policy()
        self._journal = Journal(
            EventStore(bus, writer=settings.site), site=settings.site, policy=policy, images=settings.images
        )
        secrets = SecretStore(settings.state_dir / "secrets", key_file=settings.secrets_key_file)
        brokers = Brokers(bus, site=settings.site)
        grants = Grants(lambda: self._journal.site, bus=bus, brokers=brokers, key=self._seal_key)
        site_secrets = SiteSecrets(self._journal, store=secrets, key=self._seal_key)
        self._repositories = RepositoryWatch(
            self._journal,
            brokers,
            ask_signers=self._peer_signers,
            trusted=settings.repositories.trusted_signers,
            look_seconds=settings.repositories.look_every_seconds,
        )
        actions = Actions(
            lambda: self._journal.site,
            brokers=brokers,
            secrets=secrets,
            grants=grants,
            given=site_secrets,
            repositories=self._repositories,
            bulk=Bulk(settings.repositories.copies_at_once),
        )
        self._runner = Runner(self._journal, actions)
        self._commands = CommandHandler(self._journal, self._runner, bus)
        self._conditions = Conditions(bus, lambda: self._journal.site, state_dir=settings.state_dir)
        self._broker_watch = BrokerWatch(self._journal, bus, brokers)
        self._health_watch = HealthWatch(self._journal, brokers)
        self._existing_watch = ExistingWatch(self._journal, brokers, site_secrets)
        answers = Answers(self._journal, brokers=brokers, secrets=secrets, grants=grants, site_secrets=site_secrets)
        self._service = answers.service(bus, version=SERVICE_VERSION)
        MaskingAnswers(self._journal, brokers=brokers, given=site_secrets).add_to(self._service)
        RepositoryAnswers(self._journal, brokers=brokers, repositories=self._repositories).add_to(self._service)
        # Only the hub publishes to CMD: what came from there is tried again by way of the site's own queue.
        box = LetterBox(bus, place=settings.site, sent_again=(JOBS, COMMANDS), into=JOBS)
        LetterAnswers(box, site=settings.site).add_to(self._service)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Future[None]]:
        """Load, resume, listen; on the way out stop in the reverse order."""
        site = self._settings.site
        await set_up_site(self._bus, site=site)
        await self._journal.load()
        state = self._journal.site
        logger.info(
            "site %s: %d events, %d live operations",
            site,
            state.last_sequence,
            sum(1 for _ in state.live_operations()),
        )
        await self._broker_watch.look()
        self._runner.resume()
        await self._service.start()
        heart = Heart(self._bus, site=site, conditions=self._conditions)
        hub_watch = HubWatch(seconds=time.monotonic)
        if self._settings.hub:
            await self._bus.subscribe(HUB_BEAT, hub_watch.heard)
        advised = WorkQueue(self._bus, stream=ADVISORIES, consumer=LETTERS_CONSUMER, place=site)
        queues = [WorkQueue(self._bus, stream=JOBS, consumer=JOBS_CONSUMER, place=site)]
        if self._settings.hub:
            queues.append(WorkQueue(self._bus, stream=COMMANDS, consumer=site, prefix=SITE_PREFIX, place=site))
        loops = [
            asyncio.create_task(for_ever(heart.beat, every_seconds=BEAT_SECONDS), name="heartbeat"),
            asyncio.create_task(for_ever(self._look_at_condition, every_seconds=BEAT_SECONDS), name="condition"),
            asyncio.create_task(self._watch_brokers(), name="brokers"),
            asyncio.create_task(for_ever(self._health_watch.look, every_seconds=HEALTH_SECONDS), name="health"),
            asyncio.create_task(for_ever(self._existing_watch.look, every_seconds=EXISTING_SECONDS), name="attached"),
            asyncio.create_task(self._watch_repositories(), name="repositories"),
            asyncio.create_task(for_ever(hub_watch.look, every_seconds=HUB_LOOK_SECONDS), name="hub"),
            *(
                asyncio.create_task(queue.run(self._commands.handle, concurrency=COMMANDS_AT_ONCE), name="commands")
                for queue in queues
            ),
            asyncio.create_task(
                advised.run(Advisories(self._bus, place=site).handle, concurrency=1), name="advisories"
            ),
        ]
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for loop in loops:
            loop.add_done_callback(partial(_note, failed))
        try:
            yield failed
        finally:
            failed.cancel()
            await asyncio.gather(*(queue.stop() for queue in (*queues, advised)))
            await end(loops)
            await self._service.stop()
            await self._runner.stop()

    async def collect(self) -> list[Sample]:
        """What metrics show of this agent."""
        return [*bus_samples(self._bus), *await self._conditions.collect()]

    async def _look_at_condition(self) -> None:
        await self._conditions.look()
        if (seen := self._conditions.latest) is not None:
            site = self._settings.site
            self._journal.room = Fill(site, outbox(site), seen.outbox_bytes, seen.outbox_limit_bytes)

    async def _watch_repositories(self) -> None:
        await for_ever(self._repositories.look, every_seconds=REPOSITORY_SECONDS)

    async def _peer_signers(self, keys: Sequence[str]) -> dict[str, str]:
        if not self._settings.hub:
            return {}
        site = self._settings.site
        subject, question = site_ask(site=site, operation="signers"), AskSigners(keys=tuple(keys))
        said = await self._bus.ask(subject, question, SignersView, source=site, timeout_seconds=ASK_SECONDS)
        return said.known

    async def _watch_brokers(self) -> None:
        await for_ever(
            self._look_around,
            every_seconds=DISCOVERY_SECONDS,
            at_first_seconds=FIRST_DISCOVERY_SECONDS,
            first_rounds=FIRST_DISCOVERIES,
        )

    async def _look_around(self) -> None:
        await self._broker_watch.look()
        await self._announce()

    async def _announce(self) -> None:
        """Say who this site is when anything of it changed."""
        seen = self._broker_watch.crb_fingerprints

        def drafts(site: Site) -> list[Draft]:
            now = announcement(site, version=SERVICE_VERSION, seal_key=self._seal_key.public, fingerprints=seen)
            return [] if site.announced == now else [Draft("site", site.name, now)]

        await self._journal.record(drafts, each=True, need="spare")


def _note(failed: asyncio.Future[None], ended: asyncio.Task[None]) -> None:
    if ended.cancelled() or failed.done():
        return
    failed.set_exception(ended.exception() or RuntimeError(f"{ended.get_name()} ended"))


def main() -> None:
    """Run until a signal. Does not return."""
    run_process(AgentSettings, agent, name=lambda settings: f"agent of site {settings.site}")
