"""Requests to one bucket. The only module that imports boto3.

Calls block and may come from several threads. Errors are :class:`schemas.problems.CalqueError`, and the exceptions of
this module for answers that a caller goes on with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import boto3.session
import botocore.config
import botocore.exceptions

from brokers.repository.objects import ObjectMissing
from brokers.s3_repository.problems import Place, Refusal, no_keys, no_object_lock, problem_of, server_time, unreachable
from brokers.s3_repository.settings import BucketSection
from schemas.problems import CalqueError

BODY_ATTEMPTS = 3
CLOCK_AGE_SECONDS = 60.0
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_TAKEN = frozenset({"PreconditionFailed", "412"})
_NO_CONDITIONS = frozenset({"NotImplemented", "InvalidArgument", "InvalidRequest", "501"})
_PAST_THE_END = frozenset({"InvalidRange", "416"})
_NO_LOCKS = frozenset({"ObjectLockConfigurationNotFoundError", "NotImplemented", "InvalidRequest", "404", "501"})
_NO_RETENTION = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"})
_LOCKED = frozenset({"AccessDenied", "403", "ObjectLocked", "InvalidRequest", "MethodNotAllowed"})
_BROKEN_BODY = (
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ReadTimeoutError,
    botocore.exceptions.ResponseStreamingError,
)
_CONFIG = botocore.config.Config(
    signature_version="s3v4",
    connect_timeout=3,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 4},  # with backoff: also for SlowDown and 5xx
    max_pool_connections=32,
    # Packs are encrypted and authenticated; the checksums that newer SDKs add are not known everywhere.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class Taken(Exception):
    """A conditional put found an object of this name."""


class Racing(Exception):
    """Somebody else puts an object of this name at the same moment; ask again."""


class Unconditional(Exception):
    """The endpoint doesn't take conditions on a put."""


class Archived(Exception):
    """The object lies in a storage class from which it has to be brought back before it is read."""


class Head(NamedTuple):
    """An object's size in bytes, its time (seconds since the epoch) and its metadata."""

    size: int
    modified: float
    metadata: Mapping[str, str]


class Listed(NamedTuple):
    """One line of a listing. ``modified`` in seconds since the epoch."""

    key: str
    size: int
    modified: float


class ObjectVersion(NamedTuple):
    """One version of an object; ``marker``: of one that was deleted."""

    id: str
    marker: bool


class Upload(NamedTuple):
    """An upload in several parts. ``begun`` in seconds since the epoch, by the endpoint's clock."""

    key: str
    id: str
    begun: float


class Bucket:
    """The bucket that the settings name."""

    def __init__(self, section: BucketSection) -> None:
        self._section = section
        self._place = Place(section.endpoint, section.name)
        self._making = threading.Lock()
        self._made: tuple[object, Any] | None = None
        self._clock: tuple[float, float] | None = None

    def close(self) -> None:
        """Let go of connections."""
        with self._making:
            made, self._made = self._made, None
        if made is not None:
            made[1].close()

    # --- the bucket

    def check(self) -> None:
        """Raises :class:`CalqueError` unless the bucket is there and the keys may list it. Makes it if told to."""
        try:
            self.some("", limit=1)
        except CalqueError as error:
            if error.problem.code != "no_bucket" or not self._section.create:
                raise
            self._create()

    def now(self) -> float:
        """The endpoint's clock, in seconds since the epoch, as its latest answer of the last minute told it."""
        known = self._clock
        if known is None or time.monotonic() - known[0] > CLOCK_AGE_SECONDS:
            self.some("", limit=1)
            known = self._clock
        if known is None:  # an endpoint that tells no time
            return time.time()
        return known[1] + time.monotonic() - known[0]

    # --- objects

    def put(
        self, key: str, body: bytes, *, metadata: Mapping[str, str], only_new: bool, storage_class: str | None = None
    ) -> None:
        """Write an object in one request. ``only_new``: raises :class:`Taken` if there is one, :class:`Racing`, and
        :class:`Unconditional` if the endpoint can't tell."""
        request = {"Key": key, "Body": body, **_options(metadata, storage_class)}
        self._write("put_object", request, only_new=only_new)

    def begin(self, key: str, *, metadata: Mapping[str, str], storage_class: str | None = None) -> Upload:
        """Begin an upload in parts; end it with ``complete`` or ``abandon``."""
        answer = self._ask("create_multipart_upload", {"Key": key, **_options(metadata, storage_class)})
        return Upload(key, answer["UploadId"], self.now())

    def part(self, upload: Upload, number: int, body: bytes) -> str:
        """Write one part, counted from 1; returns its tag."""
        answer = self._ask("upload_part", {**_of(upload), "PartNumber": number, "Body": body})
        return str(answer["ETag"])

    def complete(self, upload: Upload, tags: list[str], *, only_new: bool) -> None:
        """Make the object of its parts appear. Raises as ``put``."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, start=1)]
        request = {**_of(upload), "MultipartUpload": {"Parts": parts}}
        self._write("complete_multipart_upload", request, only_new=only_new)

    def abandon(self, upload: Upload) -> None:
        """Remove the parts of an upload. Unknown is done."""
        self._tolerate({"NoSuchUpload", "404"}, "abort_multipart_upload", _of(upload))

    def uploads(self, prefix: str) -> list[Upload]:
        """Uploads that are under way, the first thousand."""
        found = self._ask("list_multipart_uploads", {"Prefix": prefix}).get("Uploads", ())
        return [Upload(each["Key"], each["UploadId"], _seconds(each["Initiated"])) for each in found]

    def get(self, key: str, *, offset: int, length: int | None) -> bytes:
        """Bytes of an object; none beyond its end. Raises :class:`ObjectMissing`, :class:`Archived`."""
        end = "" if length is None else str(offset + length - 1)
        ranged = {} if offset == 0 and length is None else {"Range": f"bytes={offset}-{end}"}
        try:
            return self._body({"Key": key, **ranged}, attempts=BODY_ATTEMPTS)
        except _Refused as error:
            if error.code in _PAST_THE_END:
                return b""
            raise ObjectMissing(key) from None

    def head(self, key: str) -> Head | None:
        """What is known of an object; ``None`` when there is none."""
        try:
            answer = self._ask("head_object", {"Key": key}, expected=_MISSING)
        except (_Refused, CalqueError) as error:
            # An answer to HEAD has no body that says why: a listing is refused for the same cause, and says it.
            # Nor does it tell a missing object from a missing bucket, which must not pass for an empty one.
            self.some(key, limit=1)
            if isinstance(error, _Refused):
                return None
            raise
        return Head(answer["ContentLength"], _seconds(answer["LastModified"]), answer.get("Metadata", {}))

    def some(self, prefix: str, *, limit: int) -> list[Listed]:
        """At most ``limit`` objects with the prefix."""
        return _lines(self._ask("list_objects_v2", {"Prefix": prefix, "MaxKeys": limit}))

    def list(self, prefix: str) -> Iterator[Listed]:
        """All objects with the prefix, in the endpoint's own order."""
        request = {"Prefix": prefix}
        while True:
            answer = self._ask("list_objects_v2", request)
            yield from _lines(answer)
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    def delete(self, key: str) -> None:
        """Remove an object. Unknown is done."""
        self._tolerate(_MISSING, "delete_object", {"Key": key})

    def restore(self, key: str, *, days: int, tier: str) -> bool:
        """Have an archived object brought back for some days; whether this was not asked for before."""
        wish = {"Days": days, "GlacierJobParameters": {"Tier": tier}}
        return self._tolerate({"RestoreAlreadyInProgress"}, "restore_object", {"Key": key, "RestoreRequest": wish})

    # --- locks of objects

    def check_locks(self) -> None:
        """Raises :class:`CalqueError` unless the bucket was made for locks of objects."""
        try:
            answer = self._ask("get_object_lock_configuration", {}, expected=_NO_LOCKS)
        except _Refused:
            answer = {}
        if answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") != "Enabled":
            raise CalqueError(no_object_lock(self._place))

    def kept_until(self, key: str, *, version: str | None = None) -> datetime | None:
        """Until when a version of an object is locked, if it is; the newest one if none is named."""
        request = {"Key": key} if version is None else {"Key": key, "VersionId": version}
        try:
            answer = self._ask("get_object_retention", request, expected=_NO_RETENTION | _MISSING)
        except _Refused as error:
            if error.code in _MISSING:
                raise ObjectMissing(key) from None
            return None
        until: datetime | None = answer.get("Retention", {}).get("RetainUntilDate")
        return until

    def keep(self, key: str, *, mode: str, until: datetime) -> None:
        """Lock an object."""
        retention = {"Mode": mode, "RetainUntilDate": until}
        try:
            self._ask("put_object_retention", {"Key": key, "Retention": retention}, expected=_MISSING)
        except _Refused:
            raise ObjectMissing(key) from None

    def versions(self, key: str) -> Sequence[ObjectVersion]:
        """All versions of one object, the newest first."""
        found: list[ObjectVersion] = []
        request: dict[str, Any] = {"Prefix": key}
        while True:
            answer = self._ask("list_object_versions", request)
            for marker, lines in ((True, "DeleteMarkers"), (False, "Versions")):
                found += [
                    ObjectVersion(each["VersionId"], marker) for each in answer.get(lines, ()) if each["Key"] == key
                ]
            if not answer.get("IsTruncated") or answer.get("NextKeyMarker", "") > key:
                return found
            request["KeyMarker"] = answer["NextKeyMarker"]
            request["VersionIdMarker"] = answer.get("NextVersionIdMarker", "")

    def delete_version(self, key: str, version: str) -> bool:
        """Remove one version of an object for good; whether the endpoint lets us."""
        return self._tolerate(_LOCKED, "delete_object", {"Key": key, "VersionId": version})

    # --- requests

    def _create(self) -> None:
        region = self._section.region
        request: dict[str, Any] = {}
        if region != "us-east-1":
            request["CreateBucketConfiguration"] = {"LocationConstraint": region}
        if self._section.object_lock is not None:
            request["ObjectLockEnabledForBucket"] = True
        self._tolerate({"BucketAlreadyOwnedByYou"}, "create_bucket", request)

    def _write(self, operation: str, request: Mapping[str, Any], *, only_new: bool) -> None:
        if not only_new:
            self._ask(operation, request)
            return
        expected = _TAKEN | _NO_CONDITIONS | {"ConditionalRequestConflict"}
        try:
            self._ask(operation, {**request, "IfNoneMatch": "*"}, expected=expected)
        except _Refused as error:
            if error.code in _TAKEN:
                raise Taken from None
            raise (Unconditional if error.code in _NO_CONDITIONS else Racing) from None

    def _body(self, request: Mapping[str, Any], *, attempts: int) -> bytes:
        expected = _MISSING | _PAST_THE_END
        answer = self._ask("get_object", request, expected=expected)
        try:
            return bytes(answer["Body"].read())
        except _BROKEN_BODY as error:
            if attempts == 1:
                raise CalqueError(unreachable(self._place, f"its answer broke off ({type(error).__name__})")) from None
        return self._body(request, attempts=attempts - 1)

    def _tolerate(self, codes: Collection[str], operation: str, request: Mapping[str, Any]) -> bool:
        """Ask for something; whether it was done, and not answered by one of the codes."""
        try:
            self._ask(operation, request, expected=codes)
        except _Refused:
            return False
        return True

    def _ask(self, operation: str, request: Mapping[str, Any], *, expected: Collection[str] = ()) -> Any:
        """The answer. Raises :class:`_Refused` for the codes that are expected, :class:`CalqueError` for all else."""
        try:
            ask: Callable[..., Any] = getattr(self._client(), operation)
            answer = ask(Bucket=self._section.name, **request)
        except botocore.exceptions.ClientError as error:
            refusal = _refusal(error)
            self._remember_clock(refusal.headers)
            if refusal.code in expected:
                raise _Refused(refusal.code) from None
            if refusal.code == "InvalidObjectState":
                raise Archived(str(request.get("Key"))) from None
            problem = problem_of(refusal, self._place, now=time.time())
            if problem.code == "unauthorised":
                self.close()  # a machine's role may have got new keys by now
            raise CalqueError(problem) from None
        except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError):
            raise CalqueError(no_keys(self._place)) from None
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
            raise CalqueError(unreachable(self._place, type(error).__name__)) from None
        self._remember_clock(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
        return answer

    def _remember_clock(self, headers: Mapping[str, str]) -> None:
        if (there := server_time(headers)) is not None:
            self._clock = (time.monotonic(), there)

    def _client(self) -> Any:
        """The client for the keys as their files say now."""
        section, keys = self._section, self._section.keys()
        with self._making:
            if self._made is not None and self._made[0] == keys:
                return self._made[1]
            given = {} if keys is None else {"aws_access_key_id": keys[0], "aws_secret_access_key": keys[1].value}
            client = boto3.session.Session().client(
                "s3",
                endpoint_url=section.endpoint,
                region_name=section.region,
                verify=str(section.ca_file) if section.ca_file else None,
                config=_CONFIG.merge(botocore.config.Config(s3={"addressing_style": section.addressing})),
                **given,
            )
            self._made = (keys, client)
            return client


class _Refused(Exception):
    """An error answer that the caller expects."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _refusal(error: botocore.exceptions.ClientError) -> Refusal:
    told, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    return Refusal(
        code=str(told.get("Code", "")),
        status=meta.get("HTTPStatusCode", 0),
        message=str(told.get("Message", "")),
        headers=meta.get("HTTPHeaders", {}),
        operation=error.operation_name,
    )


def _of(upload: Upload) -> dict[str, str]:
    return {"Key": upload.key, "UploadId": upload.id}


def _options(metadata: Mapping[str, str], storage_class: str | None) -> dict[str, Any]:
    chosen = {"StorageClass": storage_class} if storage_class else {}
    return {"Metadata": dict(metadata), "ContentType": "application/octet-stream", **chosen}


def _lines(answer: Mapping[str, Any]) -> list[Listed]:
    return [Listed(each["Key"], each["Size"], _seconds(each["LastModified"])) for each in answer.get("Contents", ())]


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
