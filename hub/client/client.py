"""The client: a connection to a hub, and what it can be asked. Its verbs are in :mod:`hub.client.verbs`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Self, TypeVar

import msgspec

from bus.connection import Bus, BusSettings, Message
from hub.client.bindings import OneTimeKey, OpenedBinding
from hub.client.commands import Commands
from hub.client.context import Context
from hub.client.dead_letters import LetterVerbs
from hub.client.errors import NotFoundError, client_error
from hub.client.events import EventVerbs
from hub.client.history import applied_template
from hub.client.repositories import RepositoryVerbs
from hub.client.secrets import sealed_for
from hub.client.started import Started
from hub.client.upkeep import UpkeepVerbs
from hub.client.verbs import Verbs
from hub.client.watching import Observer, watch
from hub.client.webhooks import WebhookClient
from schemas import queries, subjects
from schemas.brokers import MaskingPreview
from schemas.commands import Command
from schemas.conditions import ConditionQuery, ConditionView
from schemas.envelope import decode, unwrap
from schemas.ids import new_id
from schemas.masking import Masking
from schemas.masking_preview import MaskPreviewQuery, MaskPreviewView
from schemas.problems import CalqueError, not_found
from schemas.secrets import Secret
from schemas.signals import LogLine
from schemas.site_secrets import RemoveSecret, SecretChanged, SecretsQuery, SecretsView, SecretView, SetSecret
from schemas.values import Template

T = TypeVar("T", bound=queries.View)

QUERY_SECONDS = 5.0
COMMAND_SECONDS = 30.0
PREVIEW_SECONDS = 30.0
CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 0.2
_LOST_SECONDS = 2.0
"""A question that was in the hands of a hub that died is asked again after this time; another hub may be there."""
_SITE_AWAY = "site_unavailable"


class Client(Verbs, RepositoryVerbs, EventVerbs, LetterVerbs, UpkeepVerbs):
    """A connection to a hub. Made with :meth:`connect`; an asynchronous context manager.

    Names may be ids. Every method raises subclasses of :class:`hub.client.errors.ClientError`: invalid, not
    found, forbidden, conflict, refused, hub unreachable. Verbs answer when the command is *taken*; :meth:`wait`
    waits for the operation. A verb repeated with the same ``command`` id has one effect and the same answer.
    """

    def __init__(self, bus: Bus, *, principal: str, query_seconds: float = QUERY_SECONDS) -> None:
        self._bus = bus
        self._principal = principal
        self._query_seconds = query_seconds
        self._commands = Commands(bus, principal=principal)

    @classmethod
    async def connect(cls, context: Context, *, deadline_seconds: float = CONNECT_SECONDS) -> Self:
        """Connect as the context says; raises :class:`HubUnreachableError` or :class:`ForbiddenError`."""
        settings = BusSettings(
            servers=list(context.servers),
            nkey_seed_file=context.nkey_seed_file,
            name=f"calque-client-{context.principal}",
            inbox_prefix=subjects.reply_prefix(context.principal),
            jetstream_prefix=context.jetstream_prefix,
        )
        try:
            bus = await Bus.connect(settings, deadline_seconds=deadline_seconds)
        except CalqueError as error:
            raise client_error(error.problem) from None
        client = cls(bus, principal=context.principal)
        await client._commands.open()
        return client

    async def close(self) -> None:
        """Disconnect. Operations go on."""
        await self._commands.close()
        await self._bus.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def bus(self) -> Bus:
        """The connection."""
        return self._bus

    @property
    def principal(self) -> str:
        """As whom commands are sent."""
        return self._principal

    @property
    def webhooks(self) -> WebhookClient:
        """Events sent on as HTTP requests."""
        return WebhookClient(send=self._send, ask=self.ask, act=self._act)

    async def wait(
        self, operation: str, *, timeout: float | None = None, observer: Observer | None = None
    ) -> queries.OperationView:
        """Wait until the operation ends, at most ``timeout`` seconds; ``observer`` sees each change.

        Raises :class:`OperationFailedError`, :class:`WaitTimedOutError`, or what its command was rejected for.
        """
        return await watch(
            self._bus,
            operation,
            look=self._look,
            ask=self._commands.ask,
            timeout_seconds=timeout,
            observer=observer,
        )

    # --- queries

    async def status(self) -> queries.StatusView:
        """How it all is."""
        return await self.ask("status", queries.StatusQuery(), queries.StatusView)

    async def hubs(self) -> tuple[queries.HubView, ...]:
        """The hub processes that share the work."""
        return (await self.ask("hubs", queries.HubsQuery(), queries.HubsView)).hubs

    async def templates(self, name: str | None = None) -> tuple[queries.TemplateView, ...]:
        """Template versions, newest last."""
        return (await self.ask("templates", queries.TemplatesQuery(name=name), queries.TemplatesView)).templates

    async def template(self, name: str, *, version: str | None = None) -> Template:
        """The whole content of a template; of the newest version without ``version``."""
        found = [view for view in await self.templates(name) if version in (None, view.version)]
        if not found:
            what = f"{name}@{version}" if version else name
            message = f"there is no template {what!r}"
            raise NotFoundError(not_found("template", message, "see 'calque template list'"))
        return await applied_template(self._bus, found[-1], timeout_seconds=self._query_seconds)

    async def condition(self) -> ConditionView:
        """How the hub that answers is: who reads its streams, and what it has made of them."""
        return await self.ask("condition", ConditionQuery(), ConditionView)

    async def sites(self) -> tuple[queries.SiteView, ...]:
        """All sites."""
        return (await self.ask("sites", queries.SitesQuery(), queries.SitesView)).sites

    async def brokers(self, *, site: str | None = None) -> tuple[queries.BrokerView, ...]:
        """Brokers, of one site or of all."""
        return (await self.ask("brokers", queries.BrokersQuery(site=site), queries.BrokersView)).brokers

    async def logs(
        self, app: str, *, service: str | None = None, lines: int = 100, site: str | None = None
    ) -> queries.LogsView:
        """The last lines of an app service; of the entry point without ``service``."""
        found = await self.app(app, site=site)
        return await self.ask("logs", queries.LogsQuery(app=found.id, service=service, lines=lines), queries.LogsView)

    async def follow_logs(
        self, app: str, *, service: str | None = None, lines: int = 10, site: str | None = None
    ) -> AsyncIterator[str]:
        """The last lines, then those that come, without end."""
        where = await self.logs(app, service=service, lines=1, site=site)
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def hear(message: Message) -> None:
            heard.put_nowait(unwrap(decode(message.payload), LogLine).line)

        subject = subjects.log(site=where.site, instance=where.instance, service=where.service)
        subscription = await self._bus.subscribe(subject, hear)
        try:
            # Asked for after subscribing, so that nothing is missed between the two.
            before = await self.logs(where.instance, service=where.service, lines=lines)
            early = [heard.get_nowait() for _ in range(heard.qsize())]
            for line in (*before.lines, *unseen(before.lines, early)):
                yield line
            while True:
                yield await heard.get()
        finally:
            await subscription.drop()

    async def binding(self, app: str, data_service: str, *, site: str | None = None) -> OpenedBinding:
        """How an app reaches one of its data services, with the secrets, sealed on the way to a one-time key."""
        found = await self.app(app, site=site)
        key = OneTimeKey()
        question = queries.BindingQuery(app=found.id, data_service=data_service, public_key=key.public)
        return key.open(await self.ask("binding", question, queries.BindingView))

    async def preview_masking(
        self,
        app: str,
        data_service: str,
        rules: Masking,
        *,
        rows: int = 0,
        before: bool = False,
        site: str | None = None,
    ) -> MaskingPreview:
        """What ``rules`` would do to a data service of a running app: to each column and, masked, to the first ``rows``
        of each table that they change, with ``before`` also as they are. Sealed on the way to a one-time key."""
        found = await self.app(app, site=site)
        key = OneTimeKey()
        question = MaskPreviewQuery(
            app=found.id, data_service=data_service, rules=rules, public_key=key.public, rows=rows, before=before
        )
        view = await self._ask_on(
            subjects.query("mask_preview"), question, MaskPreviewView, seconds=PREVIEW_SECONDS, give_up=_SITE_AWAY
        )
        return msgspec.json.decode(key.unseal(view.preview), type=MaskingPreview)

    # --- secrets of sites

    async def secrets(self, *, site: str | None = None) -> tuple[SecretView, ...]:
        """The secrets that people gave to sites, without their values."""
        return (await self.ask("secrets", SecretsQuery(site=site), SecretsView)).secrets

    async def set_secret(self, name: str, value: Secret, *, site: str, command: str | None = None) -> SecretChanged:
        """Give ``site`` a secret, sealed to its key. Not queued: a site that is offline is a temporary error."""
        self._named(name, field="name")
        found = {each.name: each for each in await self.sites()}
        if site not in found:
            listed = ", ".join(sorted(found)) or "none"
            raise NotFoundError(not_found("site", f"there is no site {site!r}", f"there are: {listed}"))
        sealed = sealed_for(found[site], name=name, value=value)
        data = SetSecret(id=command or new_id(), site=site, name=name, sealed=sealed)
        return await self._act("secret_set", data, SecretChanged)

    async def remove_secret(self, name: str, *, site: str, command: str | None = None) -> SecretChanged:
        """Take a secret away from ``site``."""
        self._named(name, field="name")
        data = RemoveSecret(id=command or new_id(), site=site, name=name)
        return await self._act("secret_remove", data, SecretChanged)

    # --- inside

    async def _act(self, what: str, data: queries.Query, reply: type[T]) -> T:
        """A change that is not stored. It is sent again, which changes nothing, while no hub answers."""
        return await self._ask_on(
            subjects.act(principal=self._principal, what=what), data, reply, seconds=COMMAND_SECONDS, give_up=_SITE_AWAY
        )

    async def _send(self, data: Command, *, target: str, command: str | None) -> Started:
        id = command or new_id()
        answer = await self._commands.send(data, aggregate_id=target, id=id, timeout_seconds=COMMAND_SECONDS)
        queued = answer.site or "the site" if answer.state == "queued" else None
        # A queued command starts an operation under its own id once the site takes it.
        return Started(command=id, target=target, operation=answer.operation or (id if queued else None), queued=queued)

    async def ask(self, what: str, question: queries.Query, reply: type[T]) -> T:
        """Any query; raises :class:`ClientError`. Asked again for as long as a hub may be about to be back."""
        seconds = self._query_seconds
        return await self._ask_on(subjects.query(what), question, reply, seconds=seconds, lost_after=_LOST_SECONDS)

    async def _ask_on(
        self,
        subject: str,
        question: queries.Query,
        reply: type[T],
        *,
        seconds: float,
        give_up: str = "",
        lost_after: float | None = None,
    ) -> T:
        deadline = time.monotonic() + seconds
        patience = seconds if lost_after is None else lost_after
        while True:
            left = max(deadline - time.monotonic(), 0.05)
            try:
                within = min(left, patience)
                patience = seconds
                return await self._bus.ask(subject, question, reply, source=self._principal, timeout_seconds=within)
            except CalqueError as error:
                # A hub that restarts is back in a moment, and a question may be asked twice.
                late = time.monotonic() + _RETRY_SECONDS >= deadline
                if late or not error.problem.temporary or error.problem.code == give_up:
                    raise client_error(error.problem) from None
            await asyncio.sleep(_RETRY_SECONDS)


def unseen(told: Sequence[str], heard: Sequence[str]) -> Sequence[str]:
    """What of ``heard`` is new when ``told`` may end with the beginning of it."""
    for length in range(min(len(told), len(heard)), 0, -1):
        if list(told[-length:]) == list(heard[:length]):
            return heard[length:]
    return heard
