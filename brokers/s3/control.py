"""The broker's control of the S3 server: buckets, their tags and versions, identities. The only module that imports
boto3.

Calls block and run in threads. Objects are listed and moved by :mod:`brokers.s3.wire`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import boto3
import botocore.config
import botocore.exceptions

from brokers.s3.names import BUCKET, IDENTITY
from brokers.s3.places import Keys, Place
from brokers.sdk.errors import permanent_error
from schemas.problems import Problem, permanent, temporary
from schemas.secrets import Secret

P = ParamSpec("P")
R = TypeVar("R")

POLICY = "bucket"
_REMOVERS = 4
_REMOVED_AT_ONCE = 200
# No right over versions that are not the newest, nor over versioning itself: a prepared moment relies on them.
# Only actions that both Amazon and SeaweedFS know; SeaweedFS has no Deny.
_ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:GetObjectTagging",
    "s3:PutObjectTagging",
    "s3:DeleteObjectTagging",
    "s3:AbortMultipartUpload",
    "s3:List*",
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
)
_GONE = frozenset({"NoSuchBucket", "NoSuchEntity", "NoSuchTagSet", "NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_THERE = frozenset({"EntityAlreadyExists", "BucketAlreadyOwnedByYou"})
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "Forbidden", "ExpiredToken"}
)
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_BUSY = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted"})


class Control:
    """Calls to one server. Safe to use from several threads."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._session = boto3.session.Session()
        self._clients: dict[str, tuple[Keys, Any]] = {}
        self._making = threading.RLock()
        self._proposed = threading.local()
        self._config = botocore.config.Config(
            signature_version="s3v4",
            connect_timeout=3,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=32,
            s3={"addressing_style": "virtual" if place.virtual else "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )

    @property
    def _s3(self) -> Any:
        return self._current("s3", self.place.endpoint)

    @property
    def _iam(self) -> Any:
        return self._current("iam", self.place.iam_endpoint or self.place.endpoint)

    def _current(self, service: str, endpoint: str) -> Any:
        """A client with the keys as they are now."""
        keys = self.place.keys()
        known = self._clients.get(service)
        if known is not None and known[0] == keys:
            return known[1]
        client = self._client(service, endpoint, keys)
        if service == "iam":
            client.meta.events.register("before-call.iam.CreateAccessKey", self._propose)
        self._clients[service] = (keys, client)
        return client

    def close(self) -> None:
        """Close the connections that were made."""
        for _, client in self._clients.values():
            client.close()
        self._clients.clear()

    # --- buckets

    def ping(self) -> None:
        """Raises unless the server answers and accepts the keys."""
        self._s3.list_buckets()

    def buckets(self) -> list[str]:
        """Names of the buckets that are ours."""
        found = (bucket["Name"] for bucket in self._s3.list_buckets().get("Buckets", ()))
        return sorted(name for name in found if BUCKET.fullmatch(name))

    def create(self, bucket: str, tags: Mapping[str, str]) -> None:
        """A bucket with tags, without versions. One that is there already is kept."""
        _tolerate(_THERE, self._s3.create_bucket, Bucket=bucket)
        self.tag(bucket, tags)

    def keep_versions(self, bucket: str) -> None:
        """What is overwritten from here on is kept, also what was written before."""
        self._s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def tag(self, bucket: str, tags: Mapping[str, str]) -> None:
        """Replace the tags of a bucket."""
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": pairs})

    def tags(self, bucket: str) -> dict[str, str] | None:
        """The tags of a bucket; empty when it has none, ``None`` when there is no such bucket."""
        try:
            answer = self._s3.get_bucket_tagging(Bucket=bucket)
        except botocore.exceptions.ClientError as error:
            if _code(error) == "NoSuchBucket":
                return None
            if _code(error) in _GONE:
                return {}
            raise
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def versioned(self, bucket: str) -> bool:
        """Whether what is overwritten in a bucket is kept."""
        return bool(self._s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled")

    def look(self, bucket: str) -> bool:
        """Whether a bucket of somebody else's keeps what is overwritten, and lets us read that. Raises unless it can
        be listed and read at all."""
        for found in self._s3.list_objects_v2(Bucket=bucket, MaxKeys=1).get("Contents", ()):
            self._s3.head_object(Bucket=bucket, Key=found["Key"])
        try:
            if not self.versioned(bucket):
                return False
            for found in self._s3.list_object_versions(Bucket=bucket, MaxKeys=1).get("Versions", ()):
                self._s3.head_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])
            return True
        except botocore.exceptions.ClientError as error:
            if _code(error) in _CREDENTIALS:
                return False
            raise

    def remove(self, bucket: str) -> None:
        """Remove a bucket with all versions of all objects. Unknown is done."""
        try:
            self._s3.delete_bucket(Bucket=bucket)
        except botocore.exceptions.ClientError as error:
            if _code(error) in _GONE:
                return
            if _code(error) != "BucketNotEmpty":
                raise
            self._empty(bucket)
            _tolerate(_GONE, self._s3.delete_bucket, Bucket=bucket)

    def _empty(self, bucket: str) -> None:
        uploads = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket)
        for upload in (found for page in uploads for found in page.get("Uploads", ())):
            self._s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        client = self._s3

        def remove(objects: list[dict[str, str]]) -> None:
            client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})

        with ThreadPoolExecutor(_REMOVERS, thread_name_prefix="s3-remove") as removers:
            removing: list[Future[None]] = []
            for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
                found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
                objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
                removing += [removers.submit(remove, some) for some in _batches(objects, _REMOVED_AT_ONCE)]
            for each in removing:
                each.result()

    # --- identities

    def identities(self, bucket: str | None = None) -> list[tuple[str, str]]:
        """Our identities and the bucket of each: all, or those of one bucket."""
        found = self._all_users()
        matches = (match for match in map(IDENTITY.fullmatch, found) if match)
        return sorted((match[0], match[1]) for match in matches if bucket in (None, match[1]))

    def grant(self, identity: str, *, bucket: str, access_key: str, secret: Secret) -> None:
        """Make an identity that reaches ``bucket`` and nothing else, with the given key pair, or renew it."""
        _tolerate(_THERE, self._iam.create_user, UserName=identity)
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        statement = {"Effect": "Allow", "Action": list(_ACTIONS), "Resource": resources}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._iam.put_user_policy(UserName=identity, PolicyName=POLICY, PolicyDocument=document)
        if access_key in self._access_keys(identity):
            if self._accepted(bucket, access_key, secret):
                return
            self._iam.delete_access_key(UserName=identity, AccessKeyId=access_key)
        self._create_access_key(identity, access_key, secret)

    def revoke(self, identity: str) -> None:
        """Remove an identity with its keys. Unknown is done."""
        for key in self._access_keys(identity):
            _tolerate(_GONE, self._iam.delete_access_key, UserName=identity, AccessKeyId=key)
        _tolerate(_GONE, self._iam.delete_user_policy, UserName=identity, PolicyName=POLICY)
        _tolerate(_GONE, self._iam.delete_user, UserName=identity)

    def _create_access_key(self, identity: str, access_key: str, secret: Secret) -> None:
        """With a pair of our choice, which SeaweedFS takes as fields that boto3 doesn't know."""

        self._proposed.pair = (access_key, secret)
        made = self._iam.create_access_key(UserName=identity)["AccessKey"]
        if (made["AccessKeyId"], made["SecretAccessKey"]) != (access_key, secret.value):
            self._iam.delete_access_key(UserName=identity, AccessKeyId=made["AccessKeyId"])
            raise permanent_error(
                "unsupported",
                "the server chooses access keys itself, so that a repeated bind could not answer the same",
                field="endpoint",
                remedy="use a server that takes proposed keys, such as SeaweedFS 4",
            )

    def _propose(self, params: dict[str, Any], **_: object) -> None:
        access_key, secret = self._proposed.pair
        params["body"].update(AccessKeyId=access_key, SecretAccessKey=secret.value)

    def _accepted(self, bucket: str, access_key: str, secret: Secret) -> bool:
        client = self._client("s3", self.place.endpoint, Keys(access_key, secret))
        try:
            client.get_bucket_versioning(Bucket=bucket)
        except botocore.exceptions.ClientError as error:
            if _code(error) in _CREDENTIALS:
                return False
            raise
        finally:
            client.close()
        return True

    def _access_keys(self, identity: str) -> list[str]:
        answer = _tolerate(_GONE, self._iam.list_access_keys, UserName=identity) or {}
        return [key["AccessKeyId"] for key in answer.get("AccessKeyMetadata", ())]

    def _all_users(self) -> Iterator[str]:
        marker: dict[str, str] = {}
        while True:
            answer = self._iam.list_users(**marker)
            yield from (user["UserName"] for user in answer["Users"])
            if not answer.get("IsTruncated"):
                return
            marker = {"Marker": answer["Marker"]}

    def _client(self, service: str, endpoint: str, keys: Keys) -> Any:
        with self._making:  # clients may be shared between threads, the session that makes them may not
            return self._session.client(
                service,
                endpoint_url=endpoint,
                region_name=self.place.region,
                aws_access_key_id=keys.access_key,
                aws_secret_access_key=keys.secret.value,
                aws_session_token=keys.token.value if keys.token is not None else None,
                verify=str(self.place.ca_file) if self.place.ca_file is not None else None,
                config=self._config,
            )


async def in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a blocking call; a cancelled caller waits for its end, so that clean-up never races with it."""
    running = asyncio.create_task(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def explain(error: BaseException) -> Problem | None:
    """The problem that an error of the server or of the way to it stands for."""
    if isinstance(error, botocore.exceptions.ClientError):
        code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        message = str(error.response.get("Error", {}).get("Message") or code)
        if code in _BUSY or status >= 500 or status == 429:
            return temporary("unavailable", f"S3: {message}", retry_after_seconds=2.0)
        if code in _CLOCK:
            return temporary(
                "clock_skew",
                "S3 refuses what this machine signs, because their clocks differ: set them",
                retry_after_seconds=60.0,
            )
        if code in _CREDENTIALS:
            return permanent(
                "unauthorised", f"S3 refuses the broker: {message}", remedy="check access_key_file and secret_key_file"
            )
        return permanent("s3", f"S3: {error.operation_name}: {message}")
    if isinstance(error, botocore.exceptions.HTTPClientError | botocore.exceptions.ConnectionError):
        return temporary("unavailable", "S3 does not answer", retry_after_seconds=2.0)
    if isinstance(error, botocore.exceptions.BotoCoreError):
        return permanent("s3", f"S3: {type(error).__name__}")
    return None


def _batches(objects: list[dict[str, str]], most: int) -> Iterator[list[dict[str, str]]]:
    return (objects[at : at + most] for at in range(0, len(objects), most))


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _tolerate(codes: frozenset[str], call: Callable[..., Any], **arguments: Any) -> Any:
    """The call's answer; ``None`` when it says one of ``codes``."""
    try:
        return call(**arguments)
    except botocore.exceptions.ClientError as error:
        if _code(error) not in codes:
            raise
        return None
