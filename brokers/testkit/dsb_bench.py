"""Means of a check of a data service broker."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from brokers.testkit.bench import LABELS, Bench, name_of
from brokers.testkit.checks import NotApplicable, Unmet, holds
from brokers.testkit.conversation import renewed
from brokers.testkit.probes import Probe, probe_for
from schemas.brokers import (
    Attach,
    Bind,
    Bound,
    Change,
    Copied,
    CopyData,
    CopyGrant,
    DataServicesDescription,
    Deprovision,
    DescribeDataServices,
    DiscardCopy,
    Done,
    DsbInfo,
    Existing,
    PrepareCopy,
    Prepared,
    Provision,
    Provisioned,
    ResourceDescription,
    Unbind,
)
from schemas.ids import new_id
from schemas.secrets import Secret


class DsbBench(Bench):
    """Makes data services that carry ids of their own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._services: list[str] = []
        self._copies: list[str] = []
        self._formats: dict[str, str] = {}

    # --- for the checks of all kinds

    async def operation(self) -> tuple[str, Change]:
        return "provision", await self.provision_request()

    async def stalled(self) -> tuple[str, Change]:
        copy = name_of("stalled")
        self.copies.opened(copy).committed = True
        self.stall(copy)
        return "provision", await self.provision_request(restore=self.copies.grant(copy, "read"))

    async def relieved(self, stalled: Change) -> tuple[str, Change]:
        assert isinstance(stalled, Provision)
        return "provision", await self.provision_request(stalled.service_id)

    def other(self, id: str) -> tuple[str, Change]:
        return "deprovision", Deprovision(id=id, service_id=name_of("nobody"))

    async def traces(self, request: Change) -> list[str]:
        assert isinstance(request, Provision)
        return [f"{each.kind} {each.name}" for each in await self.describe(request.service_id)]

    async def forget(self) -> None:
        for copy in self._copies:
            await self.talk.exchange("discard_copy", DiscardCopy(id=new_id(), copy=copy))
        for service in self._services:
            await self.talk.finish("deprovision", Deprovision(id=new_id(), service_id=service))

    # --- data services

    async def provision_request(self, service_id: str | None = None, *, restore: CopyGrant | None = None) -> Provision:
        """A proper request for a data service, a new one unless named."""
        info = await self.described()
        service = service_id or name_of("conform")
        if service not in self._services:
            self._services.append(service)
        if restore is not None and not info.copy_formats:
            raise NotApplicable("the broker makes no copies")
        return Provision(
            id=new_id(),
            service_id=service,
            type=self.options.type or info.types[0],
            plan=self.options.plan or info.plans[0].name,
            parameters=self.options.parameters,
            labels={**LABELS, "instance": service},
            restore=restore,
            copy_format=self._formats.get(restore.copy, info.copy_formats[0]) if restore is not None else None,
        )

    async def described(self) -> DsbInfo:
        """The broker's info, of use for a request."""
        info: DsbInfo = await self.info()
        if not info.types or not info.plans:
            raise Unmet("info names no type or no plan, so nothing can be provisioned")
        return info

    async def provision(self, service_id: str | None = None, *, restore: CopyGrant | None = None) -> str:
        """The id of a data service that is there."""
        request = await self.provision_request(service_id, restore=restore)
        await self.talk.run("provision", request, Provisioned)
        return request.service_id

    async def deprovision(self, service_id: str) -> None:
        """Remove it."""
        await self.talk.run("deprovision", Deprovision(id=new_id(), service_id=service_id), Done)

    async def describe(self, service_id: str | None = None) -> tuple[ResourceDescription, ...]:
        """What the broker shows."""
        answer = await self.talk.ask("describe", DescribeDataServices(service_id=service_id), DataServicesDescription)
        return answer.resources

    def bind_request(self, service_id: str, *, binding: str = "b1", secret: str | None = None) -> Bind:
        """Ask for credentials with a secret that is easy to find again."""
        value = secret or f"conformance-{new_id()}"
        return Bind(
            id=new_id(), service_id=service_id, binding_id=f"{service_id}-{binding}", secret=Secret(value=value)
        )

    async def bind(self, service_id: str, *, binding: str = "b1") -> Bound:
        """A binding."""
        return await self.talk.ask("bind", self.bind_request(service_id, binding=binding), Bound)

    async def unbind(self, service_id: str, *, binding: str = "b1") -> None:
        """Take the credentials back."""
        request = Unbind(id=new_id(), service_id=service_id, binding_id=f"{service_id}-{binding}")
        await self.talk.ask("unbind", request, Done)

    async def probe(self) -> Probe:
        """How the data service is used."""
        return probe_for(self.options.type or (await self.described()).types[0])

    # --- what was there before

    async def existing(self, **texts: str) -> tuple[Existing, Bound]:
        """A data service with these texts that the broker is to take for somebody else's, and its owner's access.

        A directory is made by the kit. Else one is provisioned, and named by the credentials of a binding.
        """
        if not (await self.described()).can_attach:
            raise NotApplicable("the broker attaches nothing that was there before")
        kind = self.options.type or (await self.described()).types[0]
        if kind in ("volume", "other"):
            directory = self.directory / name_of("existing")
            directory.mkdir()
            for key, text in texts.items():
                (directory / key).write_text(text)
            return Existing(url=directory.as_uri()), Bound(attributes={"path": str(directory)}, secrets={})
        if kind not in ("database", "objectstore"):
            raise NotApplicable(f"the kit can't name an existing data service of type {kind}")
        _, bound = await self.filled(**texts)
        return existing_by(bound, kind=kind), bound

    async def attach_request(self, existing: Existing, *, service_id: str | None = None) -> Attach:
        """Ask whether it can be part of an app."""
        service = service_id or name_of("attached")
        kind = self.options.type or (await self.described()).types[0]
        return Attach(
            id=new_id(), service_id=service, type=kind, existing=existing, labels={**LABELS, "instance": service}
        )

    # --- copies

    async def prepare_request(self, service_id: str, *, hold_seconds: float = 60.0) -> PrepareCopy:
        """Fix the moment of a new copy."""
        if not (await self.described()).copy_formats:
            raise NotApplicable("the broker makes no copies")
        copy = name_of("copy")
        self._copies.append(copy)
        return PrepareCopy(id=new_id(), service_id=service_id, copy=copy, hold_seconds=hold_seconds)

    async def prepare(self, service_id: str, *, hold_seconds: float = 60.0) -> PrepareCopy:
        """The request of a moment that is held."""
        request = await self.prepare_request(service_id, hold_seconds=hold_seconds)
        await self.talk.ask("prepare_copy", request, Prepared)
        return request

    def copy_request(self, prepared: PrepareCopy, *, purpose: Literal["read", "write"] = "write") -> CopyData:
        """Stream the copy to the kit's own repository."""
        self.copies.opened(prepared.copy)
        grant = self.copies.grant(prepared.copy, purpose)
        return CopyData(id=new_id(), service_id=prepared.service_id, copy=prepared.copy, grant=grant)

    async def copy(self, prepared: PrepareCopy) -> Copied:
        """The copy, written and committed in the kit's repository."""
        copied = await self.talk.run("copy", self.copy_request(prepared), Copied)
        self.committed(prepared, copied)
        return copied

    def committed(self, prepared: PrepareCopy, copied: Copied) -> None:
        """It was copied, and may be restored from here on."""
        self._formats[prepared.copy] = copied.copy_format
        self.copies.opened(prepared.copy).committed = True

    async def restored(self, prepared: PrepareCopy) -> dict[str, str]:
        """What is read from a new data service that is made from a committed copy."""
        service = await self.provision(restore=self.copies.grant(prepared.copy, "read"))
        bound = await self.bind(service)
        probe = await self.probe()
        if not probe.keeps:
            await self.has(bound, {})
            raise NotApplicable("the data service keeps nothing that could be restored")
        return await probe.read(bound)

    async def moment_is_lost(self, prepared: PrepareCopy) -> None:
        """The copy can't be made any more, and is not prepared anew."""
        await self.talk.refuses("copy", self.copy_request(prepared), "moment_lost")

    async def filled(self, **texts: str) -> tuple[str, Bound]:
        """A data service with these texts in it, if it keeps any, and a binding."""
        service = await self.provision()
        bound = await self.bind(service)
        probe = await self.probe()
        if probe.keeps:
            for key, text in texts.items():
                await probe.write(bound, key, text)
        await self.has(bound, texts)
        return service, bound

    async def has(self, bound: Bound, texts: dict[str, str]) -> None:
        """Unmet unless these texts are read; of what keeps none, unless the binding opens it."""
        probe = await self.probe()
        if not probe.keeps:
            holds(await probe.opens(bound), "the binding does not open it")
            return
        found = await probe.read(bound)
        holds(found == texts, f"written was {texts}, read is {found}")

    def again(self, request: Any) -> Any:
        """The same as another attempt."""
        return renewed(request)


def existing_by(bound: Bound, *, kind: str) -> Existing:
    """An existing data service as its user would name it: the URL without the secret, and the secret."""
    if kind == "objectstore":
        at = bound.attributes
        options: list[tuple[str, str]] = [
            (name, at[name]) for name in ("endpoint", "region", "access_key") if name in at
        ]
        query = urlencode(options)
        return Existing(url=f"s3://{at['bucket']}?{query}", secret=bound.secrets["secret_key"])
    parts = urlsplit(bound.secrets["uri"].value)
    host = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=f"{parts.username}@{host}").geturl()
    return Existing(url=url, secret=bound.secrets["password"])
