"""The S3 broker: what each operation of a data service broker means here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from brokers.s3 import archive, refusals
from brokers.s3 import control as s3_control
from brokers.s3.control import Control, in_thread
from brokers.s3.filling import fill
from brokers.s3.listing import listed, server_time
from brokers.s3.listings import Listings, Moment
from brokers.s3.names import access_key_of, bucket_of, identity_of
from brokers.s3.offers import COPY_FORMAT, PLANS, check
from brokers.s3.places import ExistingBucket, Place, existing_bucket, own_place
from brokers.s3.reading import VersionGone, entries
from brokers.s3.settings import S3Settings
from brokers.s3.wire import Wire
from brokers.s3.writing import Writing
from brokers.sdk.copystream import CopyReader, CopyStreamError, CopyWriter, KnownEntry
from brokers.sdk.errors import moment_lost, permanent_error
from brokers.sdk.progress import Reporter
from brokers.sdk.service import Broker
from schemas.brokers import (
    SERVICE_VERSION,
    Attach,
    Attachable,
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
    Existing,
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
from schemas.problems import CalqueError, Problem, invalid, not_found, permanent
from schemas.values import CopyPart

logger = logging.getLogger(__name__)

OBJECTS_PART = "objects"
ABANDON_SECONDS = 60.0
STOPPING_ABANDON_SECONDS = 2.0

# Tags of a bucket. The state is `making` until the bucket is complete.
_SERVICE, _STATE, _RESTORED, _LABEL = "calque.service_id", "calque.state", "calque.restored_bytes", "calque.label."


class S3Broker(Broker):
    """A versioned bucket per data service, an identity that reaches only that bucket per binding."""

    description = "S3: a versioned bucket per data service"

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(settings)
        self._plans = settings.priced(PLANS)
        self._own = settings
        self._control = Control(own_place(settings))
        self._listings = Listings(settings.state_dir / "moments")

    async def start(self) -> None:
        """Nothing that needs the server."""
        self._listings.open()

    async def stop(self) -> None:
        """Close the connections."""
        self._control.close()

    def explain(self, error: BaseException) -> Problem | None:
        """Errors of the server, whichever way they came."""
        return s3_control.explain(error) or refusals.explain(error)

    async def info(self, _request: InfoRequest) -> DsbInfo:
        """What this broker offers."""
        return DsbInfo(
            name=self.settings.name,
            version=SERVICE_VERSION,
            types=("objectstore",),
            plans=self._plans,
            attributes=("endpoint", "bucket", "region", "access_key"),
            secret_attributes=("secret_key",),
            protocols=("http",),
            copy_formats=(COPY_FORMAT,),
            engine="s3",
            can_attach=True,
        )

    async def attach(self, request: Attach, _reporter: Reporter) -> Attachable:
        """Look whether the bucket is there and can be listed and read; nothing is written."""
        if request.type != "objectstore":
            raise CalqueError(invalid("type", f"S3 has no {request.type}", "attach an objectstore"))
        async with self._existing(request.existing) as (found, control):
            versioned = await in_thread(control.look, found.bucket)
            place = {"bucket": found.bucket, "endpoint": found.place.endpoint, "region": found.place.region}
            return Attachable(resource={**place, "versioned": "yes" if versioned else "no"})

    async def provision(self, request: Provision, reporter: Reporter) -> Provisioned:
        """A bucket, blank or restored. Half of one, from a run that was cut off, is removed and made anew."""
        check(request)
        bucket = bucket_of(request.service_id)
        tags = await in_thread(self._control.tags, bucket)
        if tags is None or tags.get(_STATE) != "ready":
            labels = {f"{_LABEL}{name}": value for name, value in request.labels.items()}
            tags = {_SERVICE: request.service_id, _STATE: "making", **labels}
            try:
                await in_thread(self._control.remove, bucket)
                await in_thread(self._control.create, bucket, tags)
                if request.restore is not None:
                    tags[_RESTORED] = str(await self._restore(bucket, request.restore, reporter))
                # Only now: what is written once and by us alone needs no versions while it is written.
                await in_thread(self._control.keep_versions, bucket)
                tags[_STATE] = "ready"
                await in_thread(self._control.tag, bucket, tags)
            except asyncio.CancelledError:
                seconds = ABANDON_SECONDS if reporter.cancelling else STOPPING_ABANDON_SECONDS
                await self._abandon(bucket, seconds=seconds)
                raise
            except Exception:
                await self._abandon(bucket, seconds=ABANDON_SECONDS)
                raise
        return Provisioned(
            resource={"bucket": bucket, "endpoint": self._own.reachable, "region": self._own.region},
            restored_bytes=int(tags.get(_RESTORED, "0")),
        )

    async def deprovision(self, request: Deprovision, _reporter: Reporter) -> Done:
        """Identities first, so that nobody writes any more; then the bucket with all its versions."""
        bucket = bucket_of(request.service_id)
        await in_thread(self._listings.discard_service, request.service_id)
        for identity, _ in await in_thread(self._control.identities, bucket):
            await in_thread(self._control.revoke, identity)
        await in_thread(self._control.remove, bucket)
        return Done()

    async def bind(self, request: Bind) -> Bound:
        """An identity with the proposed secret as its secret key; of an existing bucket, the user's own keys."""
        if request.existing is not None:
            found = existing_bucket(request.existing, settings=self._own)
            place = {"endpoint": found.place.endpoint, "bucket": found.bucket, "region": found.place.region}
            attributes = {**place, "access_key": found.access_key}
            return Bound(attributes=attributes, secrets={"secret_key": found.secret})
        bucket = bucket_of(request.service_id)
        await self._require(request.service_id)
        access_key = access_key_of(request.service_id, request.binding_id)
        await in_thread(
            self._control.grant,
            identity_of(request.service_id, request.binding_id),
            bucket=bucket,
            access_key=access_key,
            secret=request.secret,
        )
        return Bound(
            attributes={
                "endpoint": self._own.reachable,
                "bucket": bucket,
                "region": self._own.region,
                "access_key": access_key,
            },
            secrets={"secret_key": request.secret},
        )

    async def unbind(self, request: Unbind) -> Done:
        """The identity goes."""
        await in_thread(self._control.revoke, identity_of(request.service_id, request.binding_id))
        return Done()

    async def stage_copy(self, request: StageCopy, reporter: Reporter) -> Done:
        """What lies in an archive is brought back, if the settings say so: nobody waits yet."""
        if self._own.archived == "restore":
            async with self._bucket(request) as (place, bucket, control), Wire(place, bucket) as wire:
                versions = await listed(wire, versioned=await _versioned(control, request, bucket), before=None)
                await archive.bring_back(wire, versions, settings=self._own, reporter=reporter)
        return Done()

    async def prepare_copy(self, request: PrepareCopy) -> Prepared:
        """A listing of the newest versions, kept on disk."""
        if known := self._listings.find(request.copy):
            return known.answer()
        async with self._bucket(request) as (place, bucket, control):
            versioned = await _versioned(control, request, bucket)
            address = f"{place.endpoint}/{bucket}"
            before = await in_thread(self._listings.latest, request.service_id, address) if versioned else None
            async with Wire(place, bucket) as wire:
                at = await server_time(wire)
                found = await listed(wire, versioned=versioned, before=before)
                versions, left_out = await archive.readable(wire, found, settings=self._own)
        kept = await in_thread(
            self._listings.keep,
            copy=request.copy,
            service_id=request.service_id,
            bucket=address,
            versions=versions,
            versioned=versioned,
            at=at,
            hold_seconds=request.hold_seconds,
            left_out=left_out,
        )
        return kept.answer()

    async def copy(self, request: CopyData, reporter: Reporter) -> Copied:
        """Stream exactly the listed versions."""
        moment = self._listings.get(copy=request.copy, service_id=request.service_id)
        total, done = moment.size, 0

        def passed(count: int) -> None:
            nonlocal done
            done += count  # what is sent again, because it could not be kept, counts twice
            reporter.report(done=min(done, total), total=total)

        reporter.report(done=0, total=total)
        writer = CopyWriter(request.grant, progress=passed)
        self._listings.begin_copy(request.copy)
        try:
            part = await self._write(request, writer, moment)
        except VersionGone as gone:
            raise moment_lost(request.copy, str(gone)) from None
        finally:
            self._listings.end_copy(request.copy)
        return Copied(copy_format=COPY_FORMAT, parts=(part,), engine="s3")

    async def _write(self, request: CopyData, writer: CopyWriter, moment: Moment) -> CopyPart:
        """Keep what the copy before has, all of it if nothing was done since; read the rest."""
        same = await in_thread(self._listings.same, request.copy, request.grant.parent)
        try:
            if same:
                return await writer.keep_part(OBJECTS_PART)
            return await self._read(request, writer, moment, known=writer.known(OBJECTS_PART))
        except CopyStreamError as error:
            if error.problem.code != "kept_gone":
                raise
            logger.info("copy %s: nothing of the copy before can be kept, all is read", request.copy)
            return await self._read(request, writer, moment)

    async def _read(
        self, request: CopyData, writer: CopyWriter, moment: Moment, *, known: AsyncIterator[KnownEntry] | None = None
    ) -> CopyPart:
        versions = await in_thread(self._listings.versions, moment)
        async with self._bucket(request) as (place, bucket, _), Wire(place, bucket) as wire:
            return await writer.write_entries(OBJECTS_PART, entries(wire, versions, known=known))

    @asynccontextmanager
    async def _bucket(self, request: StageCopy | PrepareCopy | CopyData) -> AsyncIterator[tuple[Place, str, Control]]:
        """Where the bucket of a data service is, its name, and calls to its server."""
        if request.existing is None:
            await self._require(request.service_id)
            yield self._control.place, bucket_of(request.service_id), self._control
            return
        async with self._existing(request.existing) as (found, control):
            yield found.place, found.bucket, control

    async def discard_copy(self, request: DiscardCopy) -> Done:
        """The listing goes; the versions stay, they are the bucket's own."""
        self._listings.discard(request.copy)
        return Done()

    async def describe(self, request: DescribeDataServices) -> DataServicesDescription:
        """Our buckets and identities, known by their names and tags: no state of the broker is needed."""
        return DataServicesDescription(resources=await in_thread(self._describe, request.service_id))

    async def health(self, request: DataServiceHealth) -> Health:
        """Whether the server answers, and the data service's bucket is there and complete."""
        try:
            if request.existing is not None:
                async with self._existing(request.existing) as (found, control):
                    await in_thread(control.look, found.bucket)
                return Health(healthy=True)
            if request.service_id is None:
                await in_thread(self._control.ping)
                return Health(healthy=True)
            await self._require(request.service_id)
        except CalqueError as error:
            return Health(healthy=False, message=error.problem.message)
        except Exception as error:
            problem = self.explain(error)
            if problem is None:
                raise
            return Health(healthy=False, message=problem.message)
        return Health(healthy=True)

    @asynccontextmanager
    async def _existing(self, existing: Existing) -> AsyncIterator[tuple[ExistingBucket, Control]]:
        """A bucket of the user's, and calls with the user's keys. What goes wrong is about those."""
        found = existing_bucket(existing, settings=self._own)
        control = Control(found.place)
        try:
            yield found, control
        except VersionGone:
            raise
        except Exception as error:
            problem = self.explain(error)
            if problem is None or problem.temporary:
                raise
            raise CalqueError(_about_existing(problem)) from error
        finally:
            control.close()

    async def _require(self, service_id: str) -> None:
        tags = await in_thread(self._control.tags, bucket_of(service_id))
        if tags is None or tags.get(_STATE) != "ready":
            raise CalqueError(not_found("service_id", f"no data service {service_id} is here", "provision it first"))

    async def _restore(self, bucket: str, grant: CopyGrant, reporter: Reporter) -> int:
        """Write every object of the copy; how many bytes they have."""
        done = 0

        def passed(count: int) -> None:
            nonlocal done
            done += count
            reporter.report(done=done, total=total)

        reader = CopyReader(grant, progress=passed)
        part = next((part for part in (await reader.describe()).parts if part.name == OBJECTS_PART), None)
        if part is None:
            raise permanent_error("wrong_copy", f"the copy has no part {OBJECTS_PART!r}", field="restore")
        total = part.size
        reporter.report(done=0, total=total)
        async with Wire(self._control.place, bucket) as wire, Writing(wire) as writing:
            await fill(writing, reader, OBJECTS_PART)
        return total

    async def _abandon(self, bucket: str, *, seconds: float) -> None:
        """Remove half a bucket now, if the server lets us; if not, the next try or a deprovision does."""
        try:
            async with asyncio.timeout(seconds):
                await in_thread(self._control.remove, bucket)
        except Exception as error:
            logger.warning("half of the bucket %s is left for now: %s", bucket, type(error).__name__)

    def _describe(self, service_id: str | None) -> tuple[ResourceDescription, ...]:
        own = bucket_of(service_id) if service_id is not None else None
        identities = self._control.identities(own)
        names = [name for name in self._control.buckets() if own in (None, name)]
        tags = {name: self._control.tags(name) or {} for name in names}
        found = [_description("bucket", name, tags[name]) for name in names]
        found += [_description("identity", name, tags.get(bucket, {})) for name, bucket in identities]
        return tuple(found)


async def _versioned(control: Control, request: StageCopy | PrepareCopy, bucket: str) -> bool:
    return await in_thread(control.look if request.existing else control.versioned, bucket)


def _about_existing(problem: Problem) -> Problem:
    if problem.code == "unauthorised":
        return permanent(
            "unauthorised",
            "these keys may not list and read the bucket",
            field="attach",
            remedy="check the access key in the URL, and the secret: calque secret set",
        )
    return msgspec.structs.replace(problem, field="attach")


def _description(kind: str, name: str, tags: dict[str, str]) -> ResourceDescription:
    labels = {key.removeprefix(_LABEL): value for key, value in tags.items() if key.startswith(_LABEL)}
    service_id = tags.get(_SERVICE)
    if service_id is None:
        return ResourceDescription(id=name, kind=kind, name=name)
    return ResourceDescription(
        id=service_id if kind == "bucket" else name,
        kind=kind,
        name=name,
        labels={**labels, "service_id": service_id},
    )
