"""What people do in a run: apply, deploy, save, run here and elsewhere, stop, start, delete and cancel, at random
moments, some of it senseless, some commands sent again and again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import NamedTuple

import msgspec

from schemas import commands as cmd
from schemas.commands import Answer, Command
from schemas.envelope import Envelope, encode, timestamp, unwrap, wrap
from schemas.masking import Masking, MaskingRule
from schemas.names import repository_token, template_token
from schemas.problems import CalqueError
from schemas.subjects import hub_command, reply_prefix, site_command
from schemas.values import (
    Artifact,
    Attachment,
    Channel,
    DataServiceSpec,
    Hook,
    Hooks,
    Requester,
    SecretRef,
    ServiceSpec,
    Template,
    TemplateRef,
)
from tests.simulation.data_broker import EXISTING
from tests.simulation.node import EPOCH
from tests.simulation.repository import STRANGE_KEY
from tests.simulation.world import CHAOS_SECONDS, REPOSITORIES, SITES, World

PRINCIPAL = "admin"
SECRET = "chat-token"
SECRET_TRIES = 4
RULES = Masking(columns=(MaskingRule(column="*.*", transformer="hash"),), unclassified="refuse")
KEPT = Masking(keep=True)
HOOKS = Hooks(quiesce=Hook(http="POST /quiesce"), thaw=Hook(http="POST /thaw"))
ALL_HOOKS = Hooks(
    quiesce=Hook(http="POST /quiesce"),
    thaw=Hook(http="POST /thaw"),
    before_copy=Hook(exec=("announce",)),
    after_copy=Hook(http="POST /announce"),
    before_restore=Hook(exec=("scrub",)),
    after_restore=Hook(exec=("reindex",)),
)


def _process(**more: object) -> ServiceSpec:
    values: dict[str, object] = {"artifact": Artifact(directory="/app", command=("run",)), "port": 80, **more}
    return ServiceSpec(**values)  # type: ignore[arg-type]


TEMPLATES = (
    Template(
        name="shop",
        version="1.0.0",
        entrypoint="web",
        services={
            "web": _process(type="public", environment={"URI": "${db.uri}", "API": "${api.url}"}, hooks=HOOKS),
            "api": _process(environment={"URI": "${db.uri}", "FILES": "${files.uri}"}, hooks=ALL_HOOKS),
        },
        data_services={
            "db": DataServiceSpec(type="database", masking=RULES),
            "files": DataServiceSpec(type="objectstore", masking=KEPT),
        },
    ),
    Template(
        name="blog",
        version="1.0.0",
        services={"web": _process(environment={"URI": "${db.uri}"}, hooks=HOOKS)},
        data_services={"db": DataServiceSpec(type="database", masking=RULES)},
    ),
    Template(name="page", version="1.0.0", services={"web": _process()}),
    Template(
        name="chat",
        version="1.0.0",
        services={
            "web": _process(
                environment={"BUS": "${bus.uri}", "TOKEN": SecretRef(name=SECRET)},
                channels={"bus": Channel(sends=("said.>",), receives=("heard.*",))},
                hooks=HOOKS,
                wants=("log",),
            ),
            "bot": _process(
                artifact=Artifact(type="image", image="chat/bot:1"),
                alternatives=(Artifact(directory="/bot", command=("run",)),),
                environment={"BUS": "${bus.uri}"},
                channels={"bus": Channel(receives=("said.>",))},
                depends_on=("web",),
            ),
            "log": _process(environment={"URI": "${db.uri}"}, optional=True),
        },
        data_services={
            "bus": DataServiceSpec(type="messaging", masking=KEPT),
            "db": DataServiceSpec(type="database", optional=True, masking=RULES),
        },
    ),
)


MASKED_EACH = 3
"""So many saves are there to a masked one."""
MOODS = ("mixed", "mixed", "travelling", "regretful")
"""What a run has more of: runs at other sites, or cancellations soon after."""


class Sent(NamedTuple):
    """A command that was sent: how often it was stored, for how long it is good."""

    subject: str
    envelope: Envelope
    command: Command
    site: str | None = None
    """Whose own queue it was put into; none for the hub's."""


class Client:
    """Sends commands and keeps what was answered."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.seed = seed
        self.sent: dict[str, Sent] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.instances: list[str] = []
        self.images: list[str] = []
        self.found_runs: dict[str, tuple[str, str]] = {}
        self._chance = world.fate.workload
        self._names = 0
        self._mood = self._chance.choice(MOODS)

    async def play(self) -> None:
        """All of it. Ends when the time for faults is over."""
        chance = self._chance
        for template in TEMPLATES:
            await self.send(template_token(template.name, template.version), cmd.ApplyTemplate(template=template))
        giving = self.world.loop.root.spawn(self._secrets())
        await asyncio.sleep(chance.uniform(0, 1.0))
        for _ in range(chance.randrange(1, 3)):
            await self._deploy()
        again: list[asyncio.Task[None]] = []
        begun = self.world.elapsed
        pace = chance.choice((0.3, 2.0, 5.0))
        for _ in range(chance.randrange(6, 15)):
            await asyncio.sleep(chance.expovariate(1 / pace))
            if self.world.elapsed - begun > CHAOS_SECONDS:
                break
            await self._something()
            if chance.random() < 0.3:
                again.append(self.world.loop.root.spawn(self._again(chance.choice(list(self.sent)))))
        await asyncio.sleep(max(0.0, CHAOS_SECONDS - (self.world.elapsed - begun)))
        for task in (giving, *again):
            await task

    async def send(
        self, target: str, command: Command, *, good_for_seconds: float | None = None, site: str | None = None
    ) -> str:
        """A new command to the hub, or to an agent by the people of its own ``site``; its id."""
        id = f"c{len(self.sent) + 1}"
        now = EPOCH + timedelta(seconds=self.world.elapsed)
        inbox = f"{reply_prefix(PRINCIPAL)}.{id}"
        envelope = wrap(
            command,
            id=id,
            source=PRINCIPAL,
            time=timestamp(now),
            replyto=inbox,
            expirytime=timestamp(now + timedelta(seconds=good_for_seconds)) if good_for_seconds else None,
        )
        kind = {"principal": PRINCIPAL, "aggregate": command.AGGREGATE, "id": target, "verb": command.VERB}
        subject = site_command(site=site, **kind) if site else hub_command(**kind)
        self.sent[id] = Sent(subject, envelope, command, site)
        self.world.network.inboxes[inbox] = lambda said: self._hear(id, said)
        self.world.trace.note("client", "sends", id, subject.removeprefix("calque.cmd."), _words(command))
        await self.store(id)
        return id

    async def store(self, id: str) -> None:
        """Into ``JOBS``, once more or for the first time."""
        sent = self.sent[id]
        await asyncio.sleep(self.world.fate.delay())
        stream = self.world.local[sent.site] if sent.site else self.world.jobs
        stream.enqueue(sent.subject, encode(sent.envelope), id)

    async def _again(self, id: str) -> None:
        """The same command again, and again past the window in which the server knows it."""
        for _ in range(self._chance.randrange(1, 3)):
            await asyncio.sleep(self._chance.choice((0.05, 2.0, 12.0, 25.0)))
            queue = "local" if self.sent[id].site else "jobs"
            self.world.trace.hit("command again", f"{queue} {self.sent[id].command.VERB}", who=f"client {id}")
            await self.store(id)

    def _hear(self, id: str, envelope: Envelope) -> None:
        answer = unwrap(envelope, Answer)
        self.world.trace.note("client", "hears", id, answer.state, answer.problem.sentence() if answer.problem else "")
        self.answers.setdefault(id, []).append(answer)

    async def _something(self) -> None:
        chance = self._chance
        roll = chance.random()
        command: Command
        if roll < 0.16 or not self.instances:
            await self._deploy()
        elif roll < 0.42:
            image = f"m{len(self.images) + 1}"
            self.images.append(image)
            command = cmd.SaveInstance(
                image=image,
                name=self._name("image"),
                repository=self._repository(),
                masked=len(self.images) % MASKED_EACH == 0,
            )
            await self._regret(await self.send(self._living(), command))
        elif roll < 0.62 and self.images:
            instance = self._instance()
            image, site = self._saved(), chance.choice(SITES)
            command = cmd.RunImage(instance=instance, name=self._name("app"), site=site, repository=self._repository())
            await self._regret(await self.send(image, command, good_for_seconds=self._for_a_while()))
            if self._mood == "travelling":
                command = cmd.RunImage(instance=self._instance(), name=self._name("app"), site=site)
                await self._regret(await self.send(image, command))
        elif roll < 0.70:
            await self.send(self._living(), cmd.StopInstance(), good_for_seconds=chance.choice((None, 20.0)))
        elif roll < 0.77:
            await self.send(self._living(), cmd.StartInstance())
        elif roll < 0.84:
            await self.send(self._living(), cmd.DeleteInstance(), good_for_seconds=chance.choice((None, None, 20.0)))
        elif roll < 0.89 and self.images:
            await self.send(self._saved(), cmd.DeleteImage())
        elif roll < 0.94 and self.images:
            command = cmd.TransferImage(site=chance.choice(SITES), repository=self._repository())
            await self._regret(await self.send(self._saved(), command, good_for_seconds=self._for_a_while()))
        elif roll < 0.95:
            await self._tend()
        elif roll < 0.965 and self.images:
            await self.send(self._saved(), cmd.EditImage(tags=("again",), comment="edited"))
        elif roll < 0.98:
            await self._locally()
        else:
            await self.send(chance.choice(list(self.sent)[-4:]), cmd.CancelOperation())

    def _for_a_while(self) -> float | None:
        """How long a command of the hub's own operations is good for: some only for a while."""
        return 20.0 if len(self.sent) % 3 == 0 else None

    async def _locally(self) -> None:
        """A command that a person at a site gives to its agent, with or without a hub."""
        chance = self._chance
        site = chance.choice(SITES)
        journal = self.world.agents[site].journal
        here = [id for id, one in journal.site.instances.items() if one.holds_name] if journal else []
        by = Requester(principal=PRINCIPAL, team="default")
        if here and chance.random() < 0.6:
            kinds = (cmd.SiteStopInstance, cmd.SiteStartInstance, cmd.SiteDeleteInstance)
            await self.send(chance.choice(here), chance.choice(kinds)(by=by), site=site)
        else:
            command = cmd.SiteDeployInstance(by=by, name=self._name("app"), template=chance.choice(TEMPLATES))
            await self.send(self._instance(), command, site=site)

    async def _secrets(self) -> None:
        """People give the sites the secret that a template asks for, now and then too late or not at all."""
        chance = self.world.fate.attaching
        for site in SITES:
            if chance.random() < 0.15:
                continue
            asked = {"id": f"secret-{site}", "name": SECRET, "value": f"of {site}"}
            for _ in range(SECRET_TRIES):
                try:
                    await self.world.network.request(
                        self.world.loop.root, f"calque.rpc.{site}.set_secret", asked, timeout_seconds=5.0, across=site
                    )
                except CalqueError as error:
                    self.world.trace.note("client", "could not set the secret of", site, error)
                    await asyncio.sleep(chance.uniform(0.2, 4.0))
                else:
                    break

    async def _tend(self) -> None:
        """Something about a whole repository."""
        chance = self._chance
        target = repository_token(chance.choice(SITES), self._repository() or REPOSITORIES[0])
        trust = (STRANGE_KEY,) if chance.random() < 0.5 else ()
        commands: list[Command] = [
            cmd.ImportRepository(trust=trust),
            cmd.VerifyRepository(),
            cmd.CollectRepository(),
        ]
        await self.send(target, chance.choice(commands))

    async def run_what_was_found(self) -> None:
        """Each image that the catalog lists as found, at a site that holds it."""
        context = next((hub.context for hub in self.world.living_hubs() if hub.context is not None), None)
        assert context is not None
        images = context.state.images
        for id, row in sorted(images.entries.items()):
            content = images.content_of(id)
            if row.state.entered.origin != "found" or row.state.status != "entered" or not content:
                continue
            assert content.content is not None
            copies = [part.copy for one in content.content.instances for part in one.parts]
            sites = frozenset.intersection(*map(images.holders, copies))
            if sites:
                site = min(sites)
                command = cmd.RunImage(instance=self._instance(), name=f"found-{id}", site=site)
                self.found_runs[await self.send(id, command)] = (site, id)

    def _repository(self) -> str | None:
        """Mostly none, and now and then one that is not there."""
        return self._chance.choice((None, None, None, *REPOSITORIES, *REPOSITORIES, "cellar"))

    async def _deploy(self) -> None:
        template = self._chance.choice(TEMPLATES)
        command = cmd.DeployInstance(
            name=self._name("app"), site=self._chance.choice(SITES), template=TemplateRef(name=template.name)
        )
        command = self._attaching(command, template)
        await self._regret(await self.send(self._instance(), command))

    def _attaching(self, command: cmd.DeployInstance, template: Template) -> cmd.DeployInstance:
        """Now and then with data services that were there before, some of them all of an adopted app."""
        chance = self.world.fate.attaching
        if not template.data_services or chance.random() >= 0.35:
            return command
        adopted = chance.random() < 0.4
        names = [name for name in template.data_services if adopted or chance.random() < 0.6]
        urls = (*EXISTING, "sim://nowhere") if chance.random() < 0.2 else EXISTING
        attach = {name: Attachment(url=chance.choice(urls)) for name in names}
        return msgspec.structs.replace(command, attach=attach, adopted=adopted)

    async def _regret(self, id: str) -> None:
        """Cancel it while it runs, in some moods."""
        if self._mood in ("travelling", "regretful") and self._chance.random() < 0.35:
            await asyncio.sleep(self._chance.uniform(0.02, 1.5))
            await self.send(id, cmd.CancelOperation())

    def _living(self) -> str:
        """Mostly an instance that a site knows of and that is not gone."""
        known = [
            id
            for agent in self.world.agents.values()
            if agent.journal is not None
            for id, one in agent.journal.site.instances.items()
            if one.holds_name
        ]
        return self._chance.choice(known if known and self._chance.random() < 0.85 else self.instances)

    def _saved(self) -> str:
        """Mostly an image that is saved."""
        known = [
            id
            for agent in self.world.agents.values()
            if agent.journal is not None
            for id, one in agent.journal.site.images.items()
            if one.state == "saved"
        ]
        return self._chance.choice(known if known and self._chance.random() < 0.85 else self.images)

    def _instance(self) -> str:
        self.instances.append(f"i{len(self.instances) + 1}")
        return self.instances[-1]

    def _name(self, kind: str) -> str:
        """Now and then one that is taken."""
        if self._chance.random() < 0.85 or not self._names:
            self._names += 1
        return f"{kind}-{self._names}"


def _words(command: Command) -> str:
    found = [str(getattr(command, name)) for name in ("instance", "image", "name", "site") if hasattr(command, name)]
    return " ".join(found)
