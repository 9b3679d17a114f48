"""What S3 answers when it doesn't do what it is asked, and who has to act."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from brokers.repository.objects import ARCHIVED
from schemas.problems import Problem, permanent, temporary

BUSY = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "429"})
FULL = frozenset({"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})
KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "InvalidClientTokenId"}
)
DENIED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"})
REGION = frozenset({"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
RETRY_SECONDS = 2.0
FULL_SECONDS = 30.0
CLOCK_SECONDS = 60.0
ARCHIVE_SECONDS = 300.0
RIGHTS = (
    "s3:ListBucket on the bucket; s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload on its objects"
)

LOCK_RIGHTS = (
    "with object_lock also s3:GetBucketObjectLockConfiguration and s3:ListBucketVersions on the bucket, "
    "s3:GetObjectRetention, s3:PutObjectRetention and s3:DeleteObjectVersion on its objects"
)


class Refusal(NamedTuple):
    """An error answer: its code (the status where there is no body), status, message, headers, and what was asked."""

    code: str
    status: int
    message: str
    headers: Mapping[str, str]
    operation: str


class Place(NamedTuple):
    """Which bucket was asked, for a person."""

    endpoint: str
    bucket: str


def problem_of(refusal: Refusal, place: Place, *, now: float) -> Problem:
    """The problem that the refusal stands for. ``now`` is this machine's clock, in seconds since the epoch."""
    code, message = refusal.code, refusal.message or refusal.code
    if code == "NoSuchBucket":
        return permanent(
            "no_bucket",
            f"there is no bucket {place.bucket} at {place.endpoint}",
            field="bucket.name",
            remedy="make the bucket, correct its name, or set bucket.create",
        )
    if code == "InvalidBucketName":
        return permanent("no_bucket", f"{place.bucket} can't be a bucket's name: {message}", field="bucket.name")
    if code in ("BucketAlreadyExists", "TooManyBuckets"):
        return permanent("no_bucket", f"the bucket {place.bucket} can't be made: {message}", field="bucket.name")
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return temporary(
            "clock_skew",
            f"S3 refuses what this machine signs, because their clocks differ{_difference(refusal, now)}: set them",
            retry_after_seconds=CLOCK_SECONDS,
        )
    if code in KEYS:
        return permanent(
            "unauthorised",
            f"S3 at {place.endpoint} refuses the keys: {message}",
            field="bucket.access_key_file",
            remedy="check access_key_file and secret_key_file",
        )
    if code in DENIED:
        return permanent(
            "unauthorised",
            f"S3 doesn't let these keys do {refusal.operation} in bucket {place.bucket}: {message}",
            field="bucket.access_key_file",
            remedy=f"grant {RIGHTS}",
        )
    if code in REGION:
        there = refusal.headers.get("x-amz-bucket-region")
        return permanent(
            "wrong_region",
            f"the bucket {place.bucket} is in another region: {message}",
            field="bucket.region",
            remedy=f"set bucket.region to {there}" if there else "set bucket.region to the bucket's own",
        )
    if code in FULL or refusal.status == 507:
        return temporary("full", f"S3 has no room: {message}", retry_after_seconds=FULL_SECONDS)
    if code in BUSY or refusal.status >= 500 or refusal.status == 429:
        return temporary("unavailable", f"S3: {message}", retry_after_seconds=RETRY_SECONDS)
    return permanent("s3", f"S3: {refusal.operation}: {message}")


def may_not_delete(name: str) -> Problem:
    """A version of an object stays, and no lock is the cause."""
    return permanent(
        "unauthorised",
        f"S3 doesn't let these keys delete a version of {name}",
        field="bucket.access_key_file",
        remedy=f"grant {RIGHTS}; {LOCK_RIGHTS}",
    )


def no_object_lock(place: Place) -> Problem:
    """Objects can't be locked in this bucket."""
    return permanent(
        "no_object_lock",
        f"the bucket {place.bucket} at {place.endpoint} does not lock objects",
        field="bucket.object_lock",
        remedy="name a bucket that was made with Object Lock, or leave object_lock out",
    )


def unreachable(place: Place, cause: str) -> Problem:
    """No answer came."""
    return temporary(
        "unavailable", f"S3 at {place.endpoint} does not answer: {cause}", retry_after_seconds=RETRY_SECONDS
    )


def no_keys(place: Place) -> Problem:
    """There are no keys to ask with. They may come: a machine's role is told by a service of its own."""
    return temporary(
        "unavailable",
        f"there are no keys for S3 at {place.endpoint}: name access_key_file and secret_key_file, or set up the SDK's",
        field="bucket.access_key_file",
        retry_after_seconds=FULL_SECONDS,
    )


def archived(name: str, *, asked: bool) -> Problem:
    """The object lies in an archive; whether bringing it back was asked for just now, or before."""
    doing = "bringing it back was asked for" if asked else "it is being brought back"
    return temporary(
        ARCHIVED,
        f"{name} lies in an archive; {doing}, which may take minutes to hours",
        retry_after_seconds=ARCHIVE_SECONDS,
    )


def server_time(headers: Mapping[str, str]) -> float | None:
    """The clock of the server that answered, in seconds since the epoch; whole seconds."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _difference(refusal: Refusal, now: float) -> str:
    there = server_time(refusal.headers)
    if there is None:
        return ""
    clock = datetime.fromtimestamp(there, UTC).isoformat(timespec="seconds")
    return f" by {abs(round(now - there))} s (S3 says {clock})"
