"""The reference data service broker: a directory of texts per data service, in memory what a restart may take."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from brokers.sdk.copystream import CopyReader, CopyWriter
from brokers.testkit.reference.engine import EngineBroker
from schemas.brokers import (
    Attach,
    Attachable,
    Bind,
    Bound,
    Change,
    Copied,
    CopyData,
    DataServicesDescription,
    Deprovision,
    DescribeDataServices,
    DiscardCopy,
    Done,
    DsbInfo,
    Existing,
    Health,
    PrepareCopy,
    Prepared,
    Provision,
    Provisioned,
    ResourceDescription,
    StageCopy,
    Unbind,
)
from schemas.problems import CalqueError, invalid, not_found, permanent
from schemas.secrets import Secret
from schemas.values import Plan

FORMAT = "reference"
PART = "texts"


class Moment(NamedTuple):
    """What was there when the copy was prepared."""

    service_id: str
    texts: dict[str, str]
    answer: Prepared
    expires: float


class ReferenceDsb(EngineBroker):
    """Volumes."""

    kind = "dsb"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.services: dict[str, dict[str, Any]] = self.disk.setdefault("services", {})
        self.lost: dict[str, str] = self.disk.setdefault("lost", {})
        self.attached: dict[str, str] = self.disk.setdefault("attached", {})
        self.moments: dict[str, Moment] = {}
        self.copying: dict[str, asyncio.Task[Any]] = {}
        self.prepared = 0
        if self.restarted and self.broken("any.restart.effect"):
            self.services.clear()
        if self.restarted:
            for copy in self.disk.setdefault("prepared", set()):
                if not self.broken("dsb.restart.moment"):
                    self.lost[copy] = "the broker was restarted"

    def key_of(self, request: Change) -> str:
        return str(getattr(request, "copy", None) or getattr(request, "service_id", ""))

    async def describe_self(self) -> DsbInfo:
        plan = Plan(name="small", monthly_cost=0.0)
        return DsbInfo(
            name="other" if self.broken("any.info.complete") else self.name,
            version="1.0.0",
            types=("volume",),
            plans=(plan, plan) if self.broken("dsb.info.plans") else (plan,),
            attributes=("path",),
            secret_attributes=("password",),
            protocols=() if self.broken("dsb.info.copies") else ("http",),
            copy_formats=(FORMAT,),
            can_attach=True,
        )

    # --- data services

    def _data(self, service_id: str) -> Path:
        return self.directory / "services" / service_id

    def _binding(self, service_id: str, binding_id: str) -> Path:
        return self.directory / "bindings" / f"{service_id}.{binding_id}"

    def _bindings(self, service_id: str) -> list[Path]:
        return list((self.directory / "bindings").glob(f"{service_id}.*"))

    def _require(self, service_id: str) -> None:
        if service_id not in self.services:
            raise CalqueError(not_found("service_id", f"no data service {service_id} is here"))

    def _check(self, request: Provision) -> None:
        if request.type != "volume" and not self.broken("dsb.provision.type"):
            raise CalqueError(invalid("type", f"there is no {request.type} here"))
        if request.plan != "small" and not self.broken("dsb.provision.plan"):
            raise CalqueError(invalid("plan", f"there is no plan {request.plan}"))
        if request.parameters and not self.broken("dsb.provision.parameters"):
            raise CalqueError(invalid("parameters", f"{', '.join(request.parameters)} are not known"))
        foreign = request.restore is not None and request.copy_format != FORMAT
        if foreign and not self.broken("dsb.provision.copy_format"):
            raise CalqueError(invalid("copy_format", f"{request.copy_format} can't be restored here"))

    async def provision(self, request: Provision) -> Provisioned:
        self._check(request)
        id, directory = request.service_id, self._data(request.service_id)
        if id in self.services and not self.broken("dsb.provision.keeps"):
            return self._provisioned(id)
        if directory.exists() and not self.broken("dsb.deprovision.forgets"):
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.services[id] = {"labels": dict(request.labels)}
        try:
            if request.restore is not None:
                texts = await self._fetch(request)
                for key, text in texts.items():
                    (directory / key).write_text(text)
                if self.broken("dsb.restore.independent"):
                    directory.rename(directory.with_suffix(".unused"))
                    directory.symlink_to(self._data(self.moments[request.restore.copy].service_id))
        except asyncio.CancelledError:
            if not self.broken("any.cancel.running"):
                self._erase(id)
            raise
        except CalqueError:
            if not self.broken("dsb.restore.damaged"):
                self._erase(id)
            raise
        if self.broken("dsb.provision.concurrent"):
            self.services[id]["attempt"] = request.id
        if self.broken("dsb.provision.keeps"):
            shutil.rmtree(directory)
            directory.mkdir()
        return self._provisioned(id)

    async def _fetch(self, request: Provision) -> dict[str, str]:
        assert request.restore is not None
        reader = CopyReader(request.restore)
        if not any(part.name == PART for part in (await reader.describe()).parts):
            raise CalqueError(permanent("wrong_copy", "the copy has no texts", field="restore"))
        body = b"".join([bytes(block) async for block in reader.read_stream(PART)])
        return msgspec.json.decode(body, type=dict[str, str])

    def _provisioned(self, id: str) -> Provisioned:
        attempt = self.services[id].pop("attempt", None)
        return Provisioned(resource={"directory": str(self._data(id)), **({"attempt": attempt} if attempt else {})})

    def _erase(self, id: str) -> None:
        self.services.pop(id, None)
        self.made.pop(id, None)
        shutil.rmtree(self._data(id), ignore_errors=True)
        for binding in self._bindings(id):
            binding.unlink()

    async def deprovision(self, request: Deprovision) -> Done:
        id = request.service_id
        if id in self.attached and self.broken("dsb.attach.kept"):
            shutil.rmtree(self.attached[id])
        if id not in self.services:
            if self.broken("dsb.deprovision.unknown"):
                self._require(id)
            return Done()
        if self.broken("dsb.deprovision.forgets"):
            self.services.pop(id, None)
            return Done()
        if not self.broken("dsb.deprovision.copies"):
            for copy in [copy for copy, moment in self.moments.items() if moment.service_id == id]:
                self._drop(copy, "its data service is gone")
        self._erase(id)
        if self.broken("dsb.deprovision.all_gone"):
            self.services[id] = {"labels": {}}
        return Done()

    async def describe(self, request: DescribeDataServices) -> DataServicesDescription:
        named = request.service_id
        if named is not None and named not in self.services and self.broken("dsb.describe.unknown"):
            self._require(named)
        everything = named is None or self.broken("dsb.describe.one")
        found: list[ResourceDescription] = []
        for id, service in self.services.items():
            if not everything and id != named:
                continue
            labels = {} if self.broken("dsb.describe.labels") else {**service["labels"], "service_id": id}
            for number in range(2 if id in self.doubled else 1):
                name = f"directory{number or ''}"
                if self.broken("dsb.secrets.hidden"):
                    name += service.get("secret", "")
                found.append(ResourceDescription(id=id, kind="directory", name=name, labels=labels))
            bindings = self._bindings(id)
            found += [ResourceDescription(id=each.name, kind="binding", name=each.name) for each in bindings]
        if self.broken("dsb.attach.not_ours"):
            found += [ResourceDescription(id=id, kind="directory", name=name) for id, name in self.attached.items()]
        return DataServicesDescription(resources=tuple(found))

    async def health_of(self, _service_id: str) -> Health:
        return Health(healthy=_service_id in self.services or self.broken("dsb.health.service"))

    # --- what was there before

    async def attach(self, request: Attach) -> Attachable:
        directory = self._existing(request.existing)
        if not directory.is_dir() and not self.broken("dsb.attach.unreachable"):
            raise CalqueError(permanent("not_found", "there is no such directory", field="attach"))
        self.attached[request.service_id] = str(directory)
        self.made.pop(request.service_id, None)
        named = f"{directory} {request.id}" if self.broken("dsb.attach.works") else str(directory)
        return Attachable(resource={"directory": named})

    def _existing(self, existing: Existing) -> Path:
        parts = urlsplit(existing.url)
        if parts.password is not None and not self.broken("dsb.attach.password"):
            raise CalqueError(invalid("attach", "the URL holds a password"))
        if parts.scheme != "file":
            raise CalqueError(invalid("attach", "that is no URL of a directory"))
        return Path(unquote(parts.path))

    # --- bindings

    async def bind(self, request: Bind) -> Bound:
        if request.existing is not None:
            wrong = self.broken("dsb.attach.bind")
            return Bound(
                attributes={"path": "/nonexistent" if wrong else str(self._existing(request.existing))}, secrets={}
            )
        if not self.broken("dsb.bind.unknown_service"):
            self._require(request.service_id)
        link = self._binding(request.service_id, request.binding_id)
        if self.broken("dsb.bind.repeated") and link.exists():
            link = link.with_name(f"{link.name}-{request.id}-again{len(self._bindings(request.service_id))}")
        if self.broken("dsb.bind.concurrent"):
            link = link.with_name(f"{link.name}-{len(self._bindings(request.service_id))}")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(self._data(request.service_id))
        self.services.get(request.service_id, {})["secret"] = request.secret.value
        path = Path("/nonexistent") if self.broken("dsb.bind.works") else link
        secret = Secret(value="chosen by the broker") if self.broken("dsb.bind.secret") else request.secret
        attributes = {"path": str(path)}
        if self.broken("dsb.bind.attributes"):
            attributes["colour"] = "red"
        return Bound(attributes=attributes, secrets={"password": secret})

    async def unbind(self, request: Unbind) -> Done:
        link = self._binding(request.service_id, request.binding_id)
        if not link.is_symlink() and self.broken("dsb.unbind.unknown"):
            raise CalqueError(not_found("binding_id", "there is no such binding"))
        if not self.broken("dsb.unbind.works"):
            link.unlink(missing_ok=True)
        if self.broken("dsb.unbind.others"):
            for other in self._bindings(request.service_id):
                other.unlink()
        return Done()

    # --- copies

    def _texts(self, service_id: str) -> dict[str, str]:
        return _texts_in(self._data(service_id))

    async def stage_copy(self, request: StageCopy) -> Done:
        if self.broken("dsb.stage"):
            raise CalqueError(permanent("unsupported", "there is nothing to stage"))
        if request.existing is None:
            self._require(request.service_id)
        return Done()

    async def prepare_copy(self, request: PrepareCopy) -> Prepared:
        copy = request.copy
        if copy in self.lost and self.broken("dsb.prepare.never_new"):
            del self.lost[copy]
        if copy in self.lost or (copy in self.moments and self._expired(copy)):
            raise self._moment_lost(copy)
        if copy in self.moments and not self.broken("dsb.prepare.repeated"):
            return self.moments[copy].answer
        if not self.broken("dsb.prepare.unknown_service") and request.existing is None:
            self._require(request.service_id)
        self.prepared += 1
        answer = Prepared(moment=f"moment {self.prepared}", level="application")
        expires = asyncio.get_running_loop().time() + request.hold_seconds
        texts = self._texts(request.service_id)
        if request.existing is not None and not self.broken("dsb.attach.copy"):
            texts = _texts_in(self._existing(request.existing))
        self.moments[copy] = Moment(request.service_id, texts, answer, expires)
        self.disk["prepared"] = self.disk.get("prepared", set()) | {copy}
        return answer

    def _expired(self, copy: str) -> bool:
        over = self.moments[copy].expires < asyncio.get_running_loop().time()
        return over and not self.broken("dsb.prepare.expires")

    def _moment_lost(self, copy: str) -> CalqueError:
        return CalqueError(permanent("moment_lost", f"the moment of {copy} is lost", field="copy"))

    def _drop(self, copy: str, why: str) -> None:
        if not self.broken("dsb.discard.lets_go"):
            self.moments.pop(copy, None)
        self.lost[copy] = why
        if copy in self.copying and not self.broken("dsb.discard.running"):
            self.copying[copy].cancel()

    async def copy(self, request: CopyData) -> Copied:
        copy = request.copy
        moment = self.moments.get(copy)
        if moment is None and self.broken("dsb.copy.unprepared"):
            moment = Moment(request.service_id, self._texts(request.service_id), Prepared(moment="now"), 1e12)
        if moment is None or (copy in self.lost and not self.broken("dsb.discard.lets_go")) or self._expired_now(copy):
            raise self._moment_lost(copy)
        texts = self._texts(moment.service_id) if self.broken("dsb.copy.moment") else moment.texts
        writing = asyncio.ensure_future(CopyWriter(request.grant).write_stream(PART, _once(msgspec.json.encode(texts))))
        self.copying[copy] = writing
        try:
            part = await writing
            if copy in self.lost and self.broken("dsb.discard.running"):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            if copy in self.lost:
                raise self._moment_lost(copy) from None
            raise
        except CalqueError as error:
            if self.broken("dsb.copy.secret"):
                raise CalqueError(permanent("refused", f"with {request.grant.token.value}: {error}")) from None
            if self.broken("dsb.copy.refused_grant"):
                self._drop(copy, "the copy failed")
            raise
        finally:
            self.copying.pop(copy, None)
        if self.broken("dsb.copy.repeated"):
            self._drop(copy, "it was copied")
        if self.broken("dsb.copy.parts"):
            part = msgspec.structs.replace(part, digest="0" * 64)
        kind = "foreign" if self.broken("dsb.copy.format") else FORMAT
        self.made.pop(copy, None)
        return Copied(copy_format=kind, parts=(part,))

    def _expired_now(self, copy: str) -> bool:
        return copy in self.moments and self._expired(copy)

    async def discard_copy(self, request: DiscardCopy) -> Done:
        if request.copy not in self.moments and self.broken("dsb.discard.unknown"):
            raise CalqueError(not_found("copy", "there is no such moment"))
        self._drop(request.copy, "it was discarded")
        return Done()


def _texts_in(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()} if directory.is_dir() else {}


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block
