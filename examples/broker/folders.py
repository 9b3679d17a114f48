"""A data service broker in one file: a folder of small text files per data service.

    CALQUE_CONFIG=settings.json python examples/broker/folders.py

`docs/writing-a-broker.md` walks through it. The SDK takes care of the bus, of discovery, and of each operation taking
effect once by its id; what is left is the technology.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from brokers.sdk.atomic import write_atomically
from brokers.sdk.copystream import CopyReader, CopyWriter
from brokers.sdk.errors import moment_lost, permanent_error
from brokers.sdk.main import run_broker
from brokers.sdk.progress import Reporter
from brokers.sdk.service import Broker
from brokers.sdk.settings import BrokerSettings
from schemas import brokers as contract
from schemas.problems import CalqueError, invalid, not_found
from schemas.values import Plan

COPY_FORMAT = "folder-json"
PART = "files"


class FolderSettings(BrokerSettings):
    """What this broker is told beyond what every broker is told."""

    folders_dir: Path


class Mark(msgspec.Struct):
    """Beside each folder: that it is ours, and whole."""

    service_id: str
    labels: dict[str, str]


class Moment(msgspec.Struct):
    """A prepared copy: what was in the folder. Without `files` it is lost, and never fixed anew."""

    service_id: str
    expires: float = 0.0
    answer: contract.Prepared | None = None
    files: dict[str, str] | None = None


class FolderBroker(Broker):
    """Folders below one directory."""

    description = "a folder of small text files per data service"

    def __init__(self, settings: FolderSettings) -> None:
        super().__init__(settings)
        self._folders = settings.folders_dir
        self._moments = settings.state_dir / "moments"

    async def start(self) -> None:
        self._folders.mkdir(parents=True, exist_ok=True)
        self._moments.mkdir(parents=True, exist_ok=True)

    async def info(self, _: contract.InfoRequest) -> contract.DsbInfo:
        return contract.DsbInfo(
            name=self.settings.name,
            version="1.0.0",
            types=("other",),
            plans=(Plan(name="small", description="a folder", monthly_cost=0.0),),
            attributes=("path",),
            secret_attributes=(),
            protocols=("http",),
            copy_formats=(COPY_FORMAT,),
        )

    async def health(self, request: contract.DataServiceHealth) -> contract.Health:
        place = self._folders if request.service_id is None else self._mark(request.service_id)
        return contract.Health(healthy=place.exists(), message="" if place.exists() else "it is not there")

    # --- data services: the mark is written last and removed first, so half a folder never counts

    async def provision(self, request: contract.Provision, reporter: Reporter) -> contract.Provisioned:
        if request.type != "other":
            raise CalqueError(invalid("type", f"there is no {request.type} here", "ask for other"))
        if request.plan != "small":
            raise CalqueError(invalid("plan", f"there is no plan {request.plan!r}", "choose small"))
        if request.parameters:
            raise CalqueError(invalid("parameters", f"{', '.join(request.parameters)}: there are none"))
        if request.restore is not None and request.copy_format != COPY_FORMAT:
            raise CalqueError(invalid("copy_format", f"{request.copy_format!r} can't be restored here"))
        folder, mark = self._folder(request.service_id), self._mark(request.service_id)
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a run left that was cut off
            files: dict[str, str] = {}
            if request.restore is not None:
                files = await self._fetch(request.restore, reporter)
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
            write_atomically(mark, msgspec.json.encode(Mark(request.service_id, request.labels)))
        return contract.Provisioned(resource={"path": str(folder)})

    async def deprovision(self, request: contract.Deprovision, _: Reporter) -> contract.Done:
        self._mark(request.service_id).unlink(missing_ok=True)
        shutil.rmtree(self._folder(request.service_id), ignore_errors=True)
        for file in self._moments.iterdir():
            if msgspec.json.decode(file.read_bytes(), type=Moment).service_id == request.service_id:
                write_atomically(file, msgspec.json.encode(Moment(request.service_id)))
        return contract.Done()

    async def describe(self, request: contract.DescribeDataServices) -> contract.DataServicesDescription:
        found = []
        for file in self._folders.glob("*.json"):
            mark = msgspec.json.decode(file.read_bytes(), type=Mark)
            if request.service_id in (None, mark.service_id):
                labels = {**mark.labels, "service_id": mark.service_id}
                found.append(
                    contract.ResourceDescription(id=mark.service_id, kind="folder", name=file.stem, labels=labels)
                )
        return contract.DataServicesDescription(resources=tuple(found))

    async def bind(self, request: contract.Bind) -> contract.Bound:
        self._require(request.service_id)
        return contract.Bound(attributes={"path": str(self._folder(request.service_id))}, secrets={})

    async def unbind(self, _: contract.Unbind) -> contract.Done:
        return contract.Done()  # a path has no credentials to take back

    # --- copies

    async def stage_copy(self, _: contract.StageCopy, _reporter: Reporter) -> contract.Done:
        return contract.Done()

    async def prepare_copy(self, request: contract.PrepareCopy) -> contract.Prepared:
        file = self._moment(request.copy)
        if file.exists():
            return self._held(request.copy).answer or contract.Prepared(moment="")
        self._require(request.service_id)
        files = {path.name: path.read_text() for path in self._folder(request.service_id).iterdir()}
        answer = contract.Prepared(moment=f"{len(files)} files at {time.time():.3f}", level="crash")
        expires = time.time() + request.hold_seconds
        write_atomically(file, msgspec.json.encode(Moment(request.service_id, expires, answer, files)))
        return answer

    async def copy(self, request: contract.CopyData, reporter: Reporter) -> contract.Copied:
        body = msgspec.json.encode(self._held(request.copy).files)
        writer = CopyWriter(request.grant, progress=lambda count: reporter.report(done=count, total=len(body)))
        part = await writer.write_stream(PART, _blocks(body), media_type="application/json")
        return contract.Copied(copy_format=COPY_FORMAT, parts=(part,))

    async def discard_copy(self, request: contract.DiscardCopy) -> contract.Done:
        write_atomically(self._moment(request.copy), msgspec.json.encode(Moment("")))
        return contract.Done()

    # --- inside

    def _name(self, service_id: str) -> str:
        return hashlib.sha256(service_id.encode()).hexdigest()[:32]  # an id may hold what a file name may not

    def _folder(self, service_id: str) -> Path:
        return self._folders / self._name(service_id)

    def _mark(self, service_id: str) -> Path:
        return self._folders / f"{self._name(service_id)}.json"

    def _moment(self, copy: str) -> Path:
        return self._moments / self._name(copy)

    def _require(self, service_id: str) -> None:
        if not self._mark(service_id).exists():
            raise CalqueError(not_found("service_id", f"no data service {service_id} is here", "provision it first"))

    def _held(self, copy: str) -> Moment:
        file = self._moment(copy)
        if not file.exists():
            raise moment_lost(copy, "it was not prepared here")
        moment = msgspec.json.decode(file.read_bytes(), type=Moment)
        if moment.files is None or moment.expires < time.time():
            raise moment_lost(copy, "it was let go")
        return moment

    async def _fetch(self, grant: contract.CopyGrant, reporter: Reporter) -> dict[str, str]:
        reader = CopyReader(grant, progress=lambda count: reporter.report(done=count))
        if not any(part.name == PART for part in (await reader.describe()).parts):
            raise permanent_error("wrong_copy", f"the copy has no part {PART!r}", field="restore")
        body = b"".join([bytes(block) async for block in reader.read_stream(PART)])
        return await asyncio.to_thread(msgspec.json.decode, body, type=dict[str, str])


async def _blocks(body: bytes) -> AsyncIterator[bytes]:
    yield body


if __name__ == "__main__":
    run_broker(FolderBroker, FolderSettings)
