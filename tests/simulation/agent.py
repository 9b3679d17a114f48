"""The real site agent on simulated surroundings, wired as ``site_agent.main`` does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from nacl.public import PrivateKey

from bus.connection import Bus
from bus.events import EventStore
from schemas import queries
from schemas.problems import CalqueError, permanent
from schemas.repositories import AskSigners, SignersView
from schemas.secrets import Secret
from schemas.site_secrets import SecretChanged, SecretContent, SiteSetSecret
from schemas.subjects import site_ask
from schemas.values import Requester
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.journal import Journal
from site_agent.adapters.sealing import SealKey, seal
from site_agent.adapters.secret_store import SecretStore
from site_agent.application.actions import Actions
from site_agent.application.commands import CommandHandler
from site_agent.application.grants import Grants
from site_agent.application.repository_watch import RepositoryWatch
from site_agent.application.runner import Runner
from site_agent.application.site_secrets import SiteSecrets
from site_agent.application.surroundings import BrokerWatch, HealthWatch, announcement, for_ever
from site_agent.domain.repositories import NO_POLICY, Policy
from site_agent.domain.site import Draft, Site
from tests.simulation.fate import Fate
from tests.simulation.loop import Process, SimLoop
from tests.simulation.network import Network, SimBus
from tests.simulation.node import Node
from tests.simulation.storage import SimQueue, SimStore
from tests.simulation.streams import Consumer, Stream

BEAT_SECONDS = 4.0
LOOK_SECONDS = 20.0
HEALTH_SECONDS = 15.0
REPOSITORY_SECONDS = 25.0
COMMANDS_AT_ONCE = 16


class FixedKey(SealKey):
    """A site's key without a file."""

    def __init__(self, site: str) -> None:
        self._key = PrivateKey(site.encode().ljust(32, b"-")[:32])


class MemorySecrets:
    """A site's secret store; what it keeps outlives the process."""

    def __init__(self, kept: dict[str, str]) -> None:
        self._kept = kept

    def put(self, reference: str, secret: Secret) -> None:
        """Keep it."""
        self._kept[reference] = secret.value

    def get(self, reference: str) -> Secret:
        """Raises ``secret_missing``."""
        if reference not in self._kept:
            raise CalqueError(permanent("secret_missing", f"this site has no {reference}"))
        return Secret(value=self._kept[reference])

    def propose(self, reference: str) -> Secret:
        """The same at every retry."""
        return Secret(value=self._kept.setdefault(reference, f"made up for {reference}"))

    def remove(self, references: list[str]) -> None:
        """Forget them."""
        for each in references:
            self._kept.pop(each, None)


@dataclass
class Agent:
    """The agent of one site: ``secrets`` is its disk, ``journal`` that of the present run."""

    loop: SimLoop
    fate: Fate
    network: Network
    site: str
    stream: Stream
    consumer: Consumer
    local: Consumer
    bury: Any
    beat: Any
    policy: Policy = NO_POLICY
    secrets: dict[str, str] = field(default_factory=dict)
    journal: Journal | None = None
    node: Node | None = None

    async def boot(self, process: Process) -> None:
        """Load, resume, listen."""
        site, node = self.site, self.node
        assert node is not None
        bus = cast(Bus, SimBus(self.network, process, site=site, fate=self.fate, loop=self.loop))
        store = SimStore(self.loop, self.fate, process, self.stream, writer=site, clock=node.now)
        journal = self.journal = Journal(cast(EventStore, store), site=site, policy=self.policy)
        secrets = cast(SecretStore, MemorySecrets(self.secrets))
        brokers = Brokers(bus, site=site)
        key = FixedKey(site)
        grants = Grants(lambda: journal.site, bus=bus, brokers=brokers, key=key)
        given = SiteSecrets(journal, store=secrets, key=cast(SealKey, key))

        async def ask_signers(keys: Sequence[str]) -> dict[str, str]:
            subject, question = site_ask(site=site, operation="signers"), AskSigners(keys=tuple(keys))
            said = await bus.ask(subject, question, SignersView, source=site, timeout_seconds=5.0)
            return said.known

        repositories = RepositoryWatch(
            journal, brokers, ask_signers=ask_signers, look_seconds=REPOSITORY_SECONDS, seconds=self.loop.time
        )
        actions = Actions(
            lambda: journal.site,
            brokers=brokers,
            secrets=secrets,
            grants=grants,
            given=given,
            repositories=repositories,
        )
        runner = Runner(journal, actions, clock=node.now)
        commands = CommandHandler(journal, runner, bus, clock=node.now)
        watch = BrokerWatch(journal, bus, brokers)
        health = HealthWatch(journal, brokers)

        async def look() -> None:
            await watch.look()

            def drafts(now: Site) -> list[Draft]:
                said = announcement(now, version="1", seal_key=key.public, fingerprints=watch.crb_fingerprints)
                return [] if now.announced == said else [Draft("site", site, said)]

            await journal.record(drafts)

        async def answer(operation: str, request: Any) -> queries.GrantView | SecretChanged:
            if operation == "set_secret":
                content = SecretContent(site=site, name=request["name"], value=Secret(value=request["value"]))
                sealed = seal(msgspec.json.encode(content), public_key=key.public)
                by = Requester(principal="admin", team="default")
                return await given.set(SiteSetSecret(id=request["id"], name=request["name"], sealed=sealed, by=by))
            assert operation == "grant"
            return await grants.for_site(request)

        async def beat() -> None:
            process.check()
            self.beat(site)

        await journal.load()
        await look()
        runner.resume()
        self.network.serve(f"calque.rpc.{site}", process, answer)
        queue = SimQueue(self.loop, self.fate, process, self.consumer, bury=self.bury)
        process.spawn(for_ever(beat, every_seconds=BEAT_SECONDS), "heartbeat")
        process.spawn(for_ever(look, every_seconds=LOOK_SECONDS), "brokers")
        process.spawn(for_ever(health.look, every_seconds=HEALTH_SECONDS), "health")
        process.spawn(for_ever(repositories.look, every_seconds=LOOK_SECONDS), "repositories")
        process.spawn(queue.run(commands.handle, concurrency=COMMANDS_AT_ONCE), "commands")
        local = SimQueue(self.loop, self.fate, process, self.local, bury=self.bury)
        process.spawn(local.run(commands.handle, concurrency=COMMANDS_AT_ONCE), "local commands")

    @property
    def busy(self) -> bool:
        """Whether an operation of the site is not over."""
        return self.journal is None or any(self.journal.site.live_operations())

    def knows_brokers(self, number: int) -> bool:
        """Whether it has found that many."""
        return self.journal is not None and len(self.journal.site.brokers) >= number
