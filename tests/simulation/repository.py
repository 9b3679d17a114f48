"""A simulated copy repository: what is staged, what is committed, manifests of images."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from brokers.sdk.errors import permanent_error, temporary_error
from brokers.sdk.progress import Reporter
from schemas import brokers as wire
from schemas.brokers import CopyGrant
from schemas.problems import CalqueError, conflict, not_found
from schemas.secrets import Secret
from schemas.values import CopyPart, CopySummary, ImageContent
from tests.simulation.loop import Process
from tests.simulation.works import MemoryOutcomes, SimBroker, Surroundings


@dataclass
class RepositoryDisk:
    """What outlives the broker."""

    outcomes: MemoryOutcomes = field(default_factory=MemoryOutcomes)
    staging: dict[str, dict[str, CopyPart]] = field(default_factory=dict)
    ahead: set[str] = field(default_factory=set)
    """Copies of which something came before their moment was fixed: it is no part of them."""
    committed: dict[str, tuple[CopySummary, wire.Copied]] = field(default_factory=dict)
    images: dict[str, ImageContent] = field(default_factory=dict)
    signers: dict[str, str] = field(default_factory=dict)
    """Images that others have signed."""
    taken: set[str] = field(default_factory=set)
    """Copies that others have removed."""

    def untrusted(self, trusted: Collection[str]) -> set[str]:
        """The images here that an unknown key has signed, which is not among ``trusted``."""
        return {image for image, key in self.signers.items() if key == STRANGE_KEY and key not in trusted}


STRANGE_KEY = "5" * 64
"""A signing key that nobody here has heard of."""


def signing_key(site: str, name: str) -> str:
    """What the repository ``name`` of ``site`` signs manifests with."""
    return f"{site}/{name}".encode().hex().ljust(64, "0")


class Repositories:
    """How the repositories are reached for bulk data: over HTTPS, by their grants. ``cut`` sites reach nobody else."""

    def __init__(self, cut: set[str]) -> None:
        self._cut = cut
        self._places: dict[str, tuple[Process, RepositoryDisk]] = {}

    def open(self, place: str, process: Process, disk: RepositoryDisk) -> None:
        """The repository ``<site>/<name>`` listens."""
        self._places[place] = (process, disk)

    def write(self, grant: CopyGrant, part: CopyPart, *, by: str) -> None:
        """One part of an open copy. Raises what the endpoint answers."""
        if grant.purpose != "write":
            raise permanent_error("forbidden", "the grant is for reading")
        opened = self._disk(grant, by=by).staging.get(grant.copy)
        if opened is None:
            raise permanent_error("not_open", f"copy {grant.copy} is not open", field="grant")
        opened[part.name] = part

    def write_ahead(self, grant: CopyGrant, *, by: str) -> None:
        """Something that the copy may turn out to need. Raises what the endpoint answers."""
        disk = self._disk(grant, by=by)
        if grant.copy not in disk.staging:
            raise permanent_error("not_open", f"copy {grant.copy} is not open", field="grant")
        disk.ahead.add(grant.copy)

    def read(self, grant: CopyGrant, *, by: str) -> tuple[CopySummary, wire.Copied]:
        """A committed copy. Raises what the endpoint answers."""
        found = self._disk(grant, by=by).committed.get(grant.copy)
        if found is None:
            raise CalqueError(not_found("copy", f"there is no copy {grant.copy}"))
        return found

    def _disk(self, grant: CopyGrant, *, by: str) -> RepositoryDisk:
        place = grant.url.removeprefix("sim://")
        site = place.partition("/")[0]
        process, disk = self._places[place]
        if process.dead or (site != by and self._cut & {site, by}):
            raise temporary_error("unavailable", f"the repository {place} does not answer")
        return disk


class Repository(SimBroker):
    """The copy repository broker of one site."""

    def __init__(
        self, around: Surroundings, process: Process, *, name: str, disk: RepositoryDisk, repositories: Repositories
    ) -> None:
        super().__init__(around, process, kind="crb", name=name, outcomes=disk.outcomes)
        self._disk = disk
        self._repositories = repositories
        self._imaging = asyncio.Lock()
        self._key = signing_key(around.site, name)
        self._place = f"{around.site}/{name}"
        repositories.open(self._place, process, disk)

    async def info(self, _request: wire.InfoRequest) -> wire.CrbInfo:
        return wire.CrbInfo(
            name=self.settings.name,
            version="1",
            repositories=("main",),
            protocols=("http",),
            fingerprint="f" * 64,
            signing_key=self._key,
        )

    async def open_write(self, request: wire.OpenWrite) -> wire.Granted:
        await self.point("open_write", "before")
        if request.copy not in self._disk.committed:
            self._disk.staging.setdefault(request.copy, {})
        await self.point("open_write", "after")
        return wire.Granted(grant=self._grant(request.copy, write=True))

    async def commit(self, request: wire.CommitCopy, _reporter: Reporter) -> wire.Committed:
        await self.point("commit", "before")
        disk = self._disk
        known = disk.committed.get(request.copy)
        if known is None:
            parts = disk.staging.get(request.copy)
            if parts is None or set(parts.values()) != set(request.copied.parts):
                raise permanent_error("parts_differ", f"copy {request.copy} is not what was received")
            known = disk.committed[request.copy] = (summary_of(request.copy, request.copied), request.copied)
            del disk.staging[request.copy]
            disk.ahead.discard(request.copy)
            self.note("committed", request.copy)
        await self.point("commit", "after")
        return wire.Committed(summary=known[0])

    async def abort(self, request: wire.AbortCopy) -> wire.Done:
        await self.point("abort", "before")
        if request.copy in self._disk.committed:
            raise CalqueError(conflict("copy", f"copy {request.copy} is committed"))
        self._disk.staging.pop(request.copy, None)
        self._disk.ahead.discard(request.copy)
        await self.point("abort", "after")
        return wire.Done()

    async def open_read(self, request: wire.OpenRead) -> wire.Granted:
        await self.point("open_read", "before")
        if request.copy not in self._disk.committed:
            raise CalqueError(not_found("copy", f"there is no copy {request.copy}"))
        return wire.Granted(grant=self._grant(request.copy, write=False))

    async def delete(self, request: wire.DeleteCopy, _reporter: Reporter) -> wire.Done:
        await self.point("delete", "before")
        self._remove(request.copy)
        await self.point("delete", "after")
        return wire.Done()

    async def transfer(self, request: wire.TransferCopy, reporter: Reporter) -> wire.Committed:
        await self.point("transfer", "before")
        disk = self._disk
        if request.copy not in disk.committed:
            disk.staging[request.copy] = {}
            try:
                for _ in range(2):
                    found = self._repositories.read(request.grant, by=self.around.site)
                    await self.point("transfer", "amid", pieces=10)
                disk.committed[request.copy] = found
                del disk.staging[request.copy]
                self.note("fetched", request.copy)
                await self.point("transfer", "after")
            except asyncio.CancelledError:
                if reporter.cancelling and not self.process.dead:
                    self._remove(request.copy)
                raise
        return wire.Committed(summary=disk.committed[request.copy][0])

    async def list(self, _request: wire.ListCopies) -> wire.CopyList:
        await self.point("list", "before")
        found = tuple(summary for summary, _ in self._disk.committed.values())
        await self.point("list", "after")
        return wire.CopyList(copies=found)

    async def images(self, request: wire.ListImages) -> wire.ImageList:
        await self.point("images", "before")
        behind = [image for image in sorted(self._disk.images) if image > request.after]
        found = tuple(
            wire.ListedImage(content=self._disk.images[image], signed_by=self._disk.signers.get(image, self._key))
            for image in behind[: request.limit]
        )
        await self.point("images", "after")
        return wire.ImageList(images=found, more=len(behind) > len(found))

    async def verify(self, request: wire.VerifyCopy, _reporter: Reporter) -> wire.Verified:
        await self.point("verify", "before")
        faults = () if request.copy in self._disk.committed else ("it is not there",)
        return wire.Verified(copy=request.copy, faults=faults)

    async def collect(self, _request: wire.Collect, _reporter: Reporter) -> wire.Collected:
        await self.point("collect", "before")
        return wire.Collected(chunks=0, bytes=0)

    async def record_image(self, request: wire.RecordImage) -> wire.Done:
        async with self._imaging:
            await self.point("record_image", "before")
            self._disk.images[request.content.image] = request.content
            self._disk.signers.pop(request.content.image, None)
            await self.point("record_image", "after")
        return wire.Done()

    async def forget_image(self, request: wire.ForgetImage) -> wire.Done:
        async with self._imaging:
            await self.point("forget_image", "before")
            self._disk.images.pop(request.image, None)
            await self.point("forget_image", "after")
        return wire.Done()

    def _remove(self, copy: str) -> None:
        self._disk.committed.pop(copy, None)
        self._disk.ahead.discard(copy)
        self._disk.staging.pop(copy, None)

    def _grant(self, copy: str, *, write: bool) -> CopyGrant:
        return CopyGrant(
            copy=copy,
            purpose="write" if write else "read",
            url=f"sim://{self._place}",
            token=Secret(value="t"),
            fingerprint="f",
            ca="",
            expires_at="",
        )


def summary_of(copy: str, copied: wire.Copied) -> CopySummary:
    """What a commit makes of it."""
    root = "+".join(sorted(part.digest for part in copied.parts))
    return CopySummary(copy=copy, merkle_root=root, manifest_digest=root, size=20, stored=10, parts=copied.parts)
