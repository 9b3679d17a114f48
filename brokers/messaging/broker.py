"""The messaging broker: what each operation of a data service broker means here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import msgspec

from brokers.messaging import accounts
from brokers.messaging.accounts import Account, Label
from brokers.messaging.moments import Moments
from brokers.messaging.server import AppServer
from brokers.messaging.settings import MessagingSettings
from brokers.sdk.copystream import CopyReader, CopyWriter, EntrySource
from brokers.sdk.errors import moment_lost, permanent_error
from brokers.sdk.progress import Reporter
from brokers.sdk.service import Broker
from schemas.brokers import (
    SERVICE_VERSION,
    Bind,
    Bound,
    Copied,
    CopyData,
    CopyGrant,
    DataServiceHealth,
    DataServicesDescription,
    Deprovision,
    DescribeDataServices,
    DiscardCopy,
    Done,
    DsbInfo,
    Health,
    InfoRequest,
    PrepareCopy,
    Prepared,
    Provision,
    Provisioned,
    ResourceDescription,
    StageCopy,
    Unbind,
)
from schemas.channels import check_subject
from schemas.problems import CalqueError, invalid, not_found
from schemas.values import Channel, Plan

COPY_FORMAT = "nats-channel"
STREAMS_PART = "streams"
PLANS = (
    Plan(
        name="small",
        description="subjects of its own on the site's NATS server for apps; messages are not kept",
        limits={"connections": str(accounts.CONNECTIONS), "message": f"{accounts.PAYLOAD_BYTES >> 20} MiB"},
    ),
)


class MessagingBroker(Broker):
    """An account of the NATS server for apps per data service; credentials per app service."""

    description = "NATS: subjects of its own per data service"

    def __init__(self, settings: MessagingSettings) -> None:
        super().__init__(settings)
        self._own = settings
        self._server = AppServer(settings)
        self._moments = Moments(settings.state_dir / "moments")

    async def start(self) -> None:
        """Nothing that needs the server."""
        self._moments.open()

    async def stop(self) -> None:
        """Close the connection."""
        await self._server.close()

    async def info(self, _request: InfoRequest) -> DsbInfo:
        """What this broker offers."""
        return DsbInfo(
            name=self.settings.name,
            version=SERVICE_VERSION,
            types=("messaging",),
            plans=PLANS,
            attributes=("url", "user", "inbox_prefix"),
            secret_attributes=("creds", "jwt", "seed"),
            protocols=("http",),
            copy_formats=(COPY_FORMAT,),
            engine="nats",
        )

    async def provision(self, request: Provision, reporter: Reporter) -> Provisioned:
        """An account without users. A copy holds no messages: it is read, so that a broken one is not restored."""
        _check(request)
        found = await self._find(request.service_id)
        if found is None:
            restored = 0
            if request.restore is not None:
                restored = await _read_copy(request.restore, reporter)
            label = Label(
                service_id=request.service_id,
                plan=request.plan,
                since=int(time.time()),
                labels=request.labels,
                restored_bytes=restored,
            )
            await self._server.put(label, {})
        else:
            label = found.label
        return Provisioned(
            resource={"account": self._public(request.service_id), "url": self._own.reachable},
            restored_bytes=label.restored_bytes,
        )

    async def deprovision(self, request: Deprovision, _reporter: Reporter) -> Done:
        """Nobody can log in any more and who is connected is cut; then the account goes."""
        self._moments.discard_service(request.service_id)
        found = await self._find(request.service_id)
        if found is not None:
            await self._server.put(found.label, {})
            await self._server.delete(found.public)
        return Done()

    async def bind(self, request: Bind) -> Bound:
        """A signing key with the declared permissions, and a user of it."""
        _check_channel(request.channel)
        account = await self._require(request.service_id)
        key = accounts.account_key(self._server.operator, request.service_id)
        signing = accounts.scope_key(key, binding_id=request.binding_id, secret=request.secret)
        inbox = accounts.inbox_of(app_service=request.app_service, binding_id=request.binding_id)
        scope = accounts.scope(signing, binding_id=request.binding_id, channel=request.channel, inbox=inbox)
        if account.scopes.get(request.binding_id) != scope:
            await self._server.put(account.label, {**account.scopes, request.binding_id: scope})
        made = accounts.user_credentials(
            key, signing, name=request.app_service or request.binding_id, since=account.label.since
        )
        return Bound(
            attributes={"url": self._own.reachable, "user": made.user, "inbox_prefix": inbox},
            secrets={"creds": made.file, "jwt": made.token, "seed": made.seed},
        )

    async def unbind(self, request: Unbind) -> Done:
        """The signing key goes, and with it whoever is connected by it."""
        account = await self._find(request.service_id)
        if account is not None and request.binding_id in account.scopes:
            left = {role: scope for role, scope in account.scopes.items() if role != request.binding_id}
            await self._server.put(account.label, left)
        return Done()

    async def stage_copy(self, _request: StageCopy, _reporter: Reporter) -> Done:
        """There is nothing to copy ahead."""
        return Done()

    async def prepare_copy(self, request: PrepareCopy) -> Prepared:
        """Nothing is kept, so the moment is a note."""
        found = self._moments.find(request.copy)
        if found is None:
            await self._require(request.service_id)
            found = self._moments.prepare(
                copy=request.copy, service_id=request.service_id, hold_seconds=request.hold_seconds
            )
        return found.answer()

    async def copy(self, request: CopyData, _reporter: Reporter) -> Copied:
        """A part without entries: the channel itself stands in the template."""
        self._moments.get(copy=request.copy, service_id=request.service_id)
        entries = _no_entries()
        async with aclosing(entries):
            part = await CopyWriter(request.grant).write_entries(STREAMS_PART, entries)
        found = self._moments.find(request.copy)
        if found is None:
            raise moment_lost(request.copy, "it was discarded")
        return Copied(copy_format=COPY_FORMAT, parts=(part,), engine="nats")

    async def discard_copy(self, request: DiscardCopy) -> Done:
        """The note goes."""
        self._moments.discard(request.copy)
        return Done()

    async def describe(self, request: DescribeDataServices) -> DataServicesDescription:
        """Our accounts and their bindings, as the server has them."""
        if request.service_id is not None:
            found = await self._find(request.service_id)
            return DataServicesDescription(resources=tuple(_resources(found)) if found else ())
        every = await self._server.all()
        return DataServicesDescription(resources=tuple(each for account in every for each in _resources(account)))

    async def health(self, request: DataServiceHealth) -> Health:
        """Whether the server answers, and has the data service's account."""
        try:
            if request.service_id is None:
                await self._server.ping()
            else:
                await self._require(request.service_id)
        except CalqueError as error:
            return Health(healthy=False, message=error.problem.message)
        return Health(healthy=True)

    def _public(self, service_id: str) -> str:
        return accounts.account_key(self._server.operator, service_id).public

    async def _find(self, service_id: str) -> Account | None:
        public = await asyncio.to_thread(self._public, service_id)
        return await self._server.account(public)

    async def _require(self, service_id: str) -> Account:
        found = await self._find(service_id)
        if found is None:
            raise CalqueError(not_found("service_id", f"no data service {service_id} is here", "provision it first"))
        return found


async def _no_entries() -> AsyncGenerator[EntrySource, None]:
    nothing: tuple[EntrySource, ...] = ()
    for entry in nothing:
        yield entry


async def _read_copy(grant: CopyGrant, reporter: Reporter) -> int:
    reader = CopyReader(grant)
    part = next((part for part in (await reader.describe()).parts if part.name == STREAMS_PART), None)
    if part is None:
        raise permanent_error("wrong_copy", f"the copy has no part {STREAMS_PART!r}", field="restore")
    async for head, _ in reader.read_entries(STREAMS_PART):
        raise permanent_error("wrong_copy", f"the copy holds {head.key!r}, which can't be restored", field="restore")
    reporter.report(done=part.size, total=part.size)
    return part.size


def _check(request: Provision) -> None:
    if request.type != "messaging":
        raise CalqueError(invalid("type", f"this broker offers no {request.type}", "ask for messaging"))
    if request.plan not in {plan.name for plan in PLANS}:
        offered = ", ".join(plan.name for plan in PLANS)
        raise CalqueError(invalid("plan", f"there is no plan {request.plan!r}", f"choose one of: {offered}"))
    if request.parameters:
        raise CalqueError(invalid("parameters", f"{', '.join(sorted(request.parameters))}: messaging takes none"))
    if request.restore is not None and request.copy_format != COPY_FORMAT:
        raise CalqueError(
            invalid("copy_format", f"{request.copy_format!r} can't be restored here", f"use {COPY_FORMAT}")
        )


def _check_channel(channel: Channel | None) -> None:
    said: Mapping[str, tuple[str, ...]] = msgspec.structs.asdict(channel) if channel else {}
    for way, subjects in said.items():
        for number, subject in enumerate(subjects):
            if problem := check_subject(subject, field=f"channel.{way}[{number}]"):
                raise CalqueError(problem)


def _resources(account: Account) -> list[ResourceDescription]:
    labels = {**account.label.labels, "service_id": account.label.service_id}
    found = [ResourceDescription(id=account.label.service_id, kind="account", name=account.public, labels=labels)]
    found += [
        ResourceDescription(id=role, kind="user", name=str(scope["key"]), labels=labels)
        for role, scope in account.scopes.items()
    ]
    return found
