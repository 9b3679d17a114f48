"""The reference repository broker: copies in memory behind the kit's own copy endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from brokers.sdk.copystream import CopyReader
from brokers.sdk.frames import Layout
from brokers.testkit.copies import CopyServer, HeldCopy
from brokers.testkit.parts import StoredPart, stream_body
from brokers.testkit.reference.engine import EngineBroker
from schemas.brokers import (
    AbortCopy,
    Change,
    Collect,
    Collected,
    CommitCopy,
    Committed,
    Copied,
    CopyDescription,
    CopyList,
    CopySource,
    CrbInfo,
    DeleteCopy,
    DescribeCopy,
    Done,
    ForgetImage,
    Granted,
    ImageList,
    ListCopies,
    ListedImage,
    ListImages,
    OpenRead,
    OpenWrite,
    RecordImage,
    RepairRepository,
    Repositories,
    RepositoriesRequest,
    RepositoryRepaired,
    RepositoryStats,
    StatsRequest,
    TransferCopy,
    Verified,
    VerifyCopy,
)
from schemas.problems import CalqueError, conflict, not_found, permanent
from schemas.values import CopyPart, CopySummary, ImageContent

SOURCES: dict[str, tuple[CopySource, CommitCopy]] = {}
"""What the reference repositories know of copies; a transfer between two of them takes it from here, where a real
one reads the manifest."""


class ReferenceCrb(EngineBroker):
    """``disk['server']`` is the endpoint with all copies; it keeps its port, its copies and its tokens."""

    kind = "crb"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if "server" not in self.disk:
            self.disk["server"] = CopyServer(self.directory, lenient=self.broken)
        self.server: CopyServer = self.disk["server"]
        self.recorded: dict[str, ImageContent] = self.disk.setdefault("images_recorded", {})
        self.described: dict[str, CopyDescription] = self.disk.setdefault("described", {})
        self.sources: dict[str, CopySource] = self.disk.setdefault("sources", {})
        self.commits = 0
        self.freed: list[int] = self.disk.setdefault("unfreed", [])

    def key_of(self, request: Change) -> str:
        return str(getattr(request, "copy", "") or "repository")

    @property
    def copies(self) -> dict[str, HeldCopy]:
        return self.server.copies

    async def open(self) -> None:
        await super().open()
        await self.server.start()
        if not self.restarted:
            return
        if self.broken("crb.restart.half"):
            self._keep(lambda held: held.committed)
        if self.broken("crb.restart.committed") or self.broken("any.restart.effect"):
            self._keep(lambda held: not held.committed)

    def _keep(self, wanted: Any) -> None:
        for copy in [copy for copy, held in self.copies.items() if not wanted(held)]:
            del self.copies[copy]

    async def close(self) -> None:
        await super().close()
        await self.server.stop()

    async def describe_self(self) -> CrbInfo:
        return CrbInfo(
            name="other" if self.broken("any.info.complete") else self.name,
            version="1.0.0",
            repositories=(self.name,),
            protocols=("http",),
            fingerprint="00" if self.broken("crb.info.fingerprint") else self.server.certificate.fingerprint,
        )

    async def repositories(self, _: RepositoriesRequest) -> Repositories:
        return Repositories(repositories=("other",) if self.broken("crb.repositories") else (self.name,))

    # --- writing

    async def open_write(self, request: OpenWrite) -> Granted:
        if self.broken("crb.open_write.resumes"):
            self.copies.pop(request.copy, None)
        if self.broken("crb.commit.sealed") and request.copy in self.copies:
            self.copies[request.copy].committed = False
        self.server.opened(request.copy)
        self.sources[request.copy] = request.source
        purpose = "read" if self.broken("crb.open_write.grant") else "write"
        parent = self.copies.get(request.parent)
        known = request.parent if parent is not None and parent.committed else ""
        if self.broken("crb.kept.unknown"):
            known = request.parent
        if self.broken("crb.kept.same"):
            known = ""
        grant = self.server.grant(request.copy, "write", seconds=request.ttl_seconds, parent=known)
        return Granted(grant=msgspec.structs.replace(grant, purpose=purpose))

    def _open(self, copy: str) -> HeldCopy:
        held = self.copies.get(copy)
        if held is None:
            if self.broken("crb.commit.unknown"):
                return self.server.opened(copy)
            raise CalqueError(not_found("copy", f"{copy} is not open here"))
        return held

    def _check(self, request: CommitCopy, held: HeldCopy) -> None:
        received = {name: (each.part.size, each.part.digest) for name, each in held.parts.items()}
        told = {part.name: (part.size, part.digest) for part in request.copied.parts}
        if told == received:
            return
        by_name = told.keys() == received.keys()
        if self.broken("crb.commit.parts_differ" if by_name else "crb.commit.missing_part"):
            return
        raise CalqueError(permanent("parts_differ", "the parts are others", field="copied.parts"))

    async def commit(self, request: CommitCopy) -> Committed:
        copy = request.copy
        held = self._open(copy)
        if not held.committed:
            self._check(request, held)
        summary = self._summary(held)
        if self.broken("crb.commit.repeated") and held.committed:
            self.commits += 1
            summary = msgspec.structs.replace(summary, manifest_digest=f"{self.commits:064}")
        if self.broken("crb.commit.concurrent"):
            self.commits += 1
            summary = msgspec.structs.replace(summary, manifest_digest=f"{self.commits:064}")
        if self.broken("crb.commit.summary"):
            summary = msgspec.structs.replace(summary, size=summary.size + 1)
        held.committed = True
        self._describe(copy, summary, self.sources[copy] if copy in self.sources else _nobody(self.site), request)
        return Committed(summary=summary)

    def _describe(self, copy: str, summary: CopySummary, source: CopySource, request: CommitCopy) -> None:
        shown = _nobody(self.site) if self.broken("crb.describe") else source
        self.described[copy] = CopyDescription(
            summary=summary,
            source=shown,
            copied=request.copied,
            moment=request.moment,
            level=request.level,
            created_at="2026-01-01T00:00:00Z",
        )
        SOURCES[copy] = (source, request)

    def _summary(self, held: HeldCopy) -> CopySummary:
        return CopySummary(
            copy=held.copy,
            merkle_root=held.root,
            manifest_digest=held.root,
            size=held.size,
            stored=held.size,
            parts=tuple(stored.part for _, stored in sorted(held.parts.items())),
        )

    async def abort(self, request: AbortCopy) -> Done:
        held = self.copies.get(request.copy)
        if held is None and self.broken("crb.abort.unknown"):
            raise CalqueError(not_found("copy", "there is no such copy"))
        if held is not None and held.committed and not self.broken("crb.abort.committed"):
            raise CalqueError(conflict("copy", f"{request.copy} is committed"))
        if self.broken("crb.abort.gone") or self.broken("crb.abort.again"):
            return Done()
        self.copies.pop(request.copy, None)
        return Done()

    # --- reading

    def _committed(self, copy: str) -> HeldCopy:
        held = self.copies.get(copy)
        if held is None or not (held.committed or self.broken("crb.half.not_readable")):
            raise CalqueError(not_found("copy", f"there is no copy {copy} here"))
        return held

    async def open_read(self, request: OpenRead) -> Granted:
        if not self.broken("crb.unknown"):
            self._committed(request.copy)
        return Granted(grant=self.server.grant(request.copy, "read", seconds=request.ttl_seconds))

    async def list(self, _: ListCopies) -> CopyList:
        found: list[CopySummary] = []
        for copy, held in self.copies.items():
            shown = held.committed or self.broken("crb.half.not_listed")
            if shown:
                summary = self.described[copy].summary if copy in self.described else self._summary(held)
                if self.broken("crb.commit.listed"):
                    summary = msgspec.structs.replace(summary, size=0)
                if self.broken("crb.token.ours"):
                    tokens = [token for token, of in self.server.tokens.items() if of.copy == copy]
                    summary = msgspec.structs.replace(summary, manifest_digest=" ".join(tokens))
                found += [summary] * (2 if copy in self.doubled else 1)
        return CopyList(copies=tuple(found))

    async def describe(self, request: DescribeCopy) -> CopyDescription:
        held = self._committed(request.copy)
        if request.copy not in self.described:
            commit = CommitCopy(id="", copy=held.copy, copied=_nothing(), moment="", level="crash")
            self._describe(held.copy, self._summary(held), _nobody(self.site), commit)
        return self.described[request.copy]

    async def verify(self, request: VerifyCopy) -> Verified:
        if request.copy not in self.copies and self.broken("crb.verify.unknown"):
            return Verified(copy=request.copy)
        self._committed(request.copy)
        faults = ("a part is damaged",) if self.broken("crb.verify.sound") else ()
        return Verified(copy=request.copy, faults=faults)

    async def delete(self, request: DeleteCopy) -> Done:
        held = self.copies.get(request.copy)
        if held is None:
            if self.broken("crb.delete.unknown"):
                self._committed(request.copy)
            return Done()
        if self.broken("crb.delete.gone"):
            return Done()
        del self.copies[request.copy]
        self.described.pop(request.copy, None)
        self.made.pop(request.copy, None)
        if self.broken("crb.delete.frees"):
            self.freed.append(held.size)
        if self.broken("crb.delete.shared"):
            for other in self.copies.values():
                other.parts.clear()
        return Done()

    # --- the repository

    async def transfer(self, request: TransferCopy) -> Committed:
        copy = request.copy
        if copy in self.copies and self.copies[copy].committed and not self.broken("crb.transfer.repeated"):
            return Committed(summary=self.described[copy].summary)
        if request.grant.copy != copy:
            if self.broken("crb.transfer.other_grant"):
                return Committed(summary=self._summary(HeldCopy(copy)))
            raise CalqueError(permanent("wrong_grant", "the grant is for another copy", field="grant"))
        held = HeldCopy(copy)
        try:
            await self._fetch(held, request)
        except asyncio.CancelledError:
            if self.broken("any.cancel.running"):
                held.committed = True
                self.copies[copy] = held
            raise
        except CalqueError:
            if self.broken("crb.transfer.refused"):
                held.committed = True
                self.copies[copy] = held
            raise
        held.committed = True
        self.copies[copy] = held
        source, commit = SOURCES[copy]
        self._describe(copy, self._summary(held), source, commit)
        return Committed(summary=self._summary(held))

    async def _fetch(self, held: HeldCopy, request: TransferCopy) -> None:
        reader = CopyReader(request.grant)
        for head in (await reader.describe()).parts:
            data = b"".join([bytes(block) async for block in reader.read_stream(head.name)])
            if self.broken("crb.transfer.same"):
                data = data[:-1]
            digest = "0" * 64 if self.broken("crb.transfer.same") else head.digest
            part = CopyPart(name=head.name, media_type=head.media_type, size=len(data), digest=digest)
            held.parts[head.name] = StoredPart(part, Layout.STREAM, stream_body(data))

    async def record_image(self, request: RecordImage) -> Done:
        if self.broken("crb.images"):
            self.recorded[request.id] = request.content
        self.recorded[request.content.image] = request.content
        return Done()

    async def images(self, request: ListImages) -> ImageList:
        token = str(sorted(self.recorded))
        if request.known == token and not self.broken("crb.images.listed"):
            return ImageList(images=(), token=token, unchanged=True)
        found = [ListedImage(content=self.recorded[image], signed_by="0" * 64) for image in sorted(self.recorded)]
        return ImageList(images=tuple(each for each in found if each.content.image > request.after), token=token)

    async def forget_image(self, request: ForgetImage) -> Done:
        self.recorded.pop(request.image, None)
        return Done()

    async def collect(self, _: Collect) -> Collected:
        if self.broken("crb.collect"):
            for held in self.copies.values():
                held.parts.clear()
        return Collected(chunks=0, bytes=0)

    async def repair(self, _: RepairRepository) -> RepositoryRepaired:
        return RepositoryRepaired()

    async def stats(self, _: StatsRequest) -> RepositoryStats:
        committed = [held for held in self.copies.values() if held.committed]
        stored = {each.part.digest: each.part.size for held in self.copies.values() for each in held.parts.values()}
        return RepositoryStats(
            copies=0 if self.broken("crb.stats") else len(committed),
            images=len(self.recorded),
            chunks=len(stored),
            stored=sum(stored.values()) + sum(self.freed),
            free=1 << 40,
        )


def _nobody(site: str) -> CopySource:
    return CopySource(site=site, instance="", instance_name="", data_service="", type="other", broker="", image="")


def _nothing() -> Copied:
    return Copied(copy_format="", parts=())
