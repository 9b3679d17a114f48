"""A repository's objects in a bucket.

An object is put under a condition (``If-None-Match: *``) where the endpoint keeps one: then two writers can't replace
each other's object. Whether it does is found out at the first put with an object of its own, :data:`PROBE`, which
stays. Other endpoints are asked first whether the object is there, which leaves a gap: the names of packs and indexes
are never given twice, so nothing is lost in it.

Big objects travel in parts, several at once; they appear when the last one is there. Uploads that a crash left behind
cost room and are not in any listing: those older than :data:`ABANDONED_SECONDS` are removed at the first put.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial

from brokers.repository.format1.packs import PACKS
from brokers.repository.objects import ObjectExists, ObjectMissing, ObjectRetained, StoredObject
from brokers.s3_repository.bucket import Archived, Bucket, Racing, Taken, Unconditional, Upload
from brokers.s3_repository.problems import archived, may_not_delete
from brokers.s3_repository.settings import BucketSection
from brokers.sdk.errors import temporary_error
from schemas.problems import CalqueError

PROBE = "calque-probe"
DIGEST = "calque-sha256"
"""Metadata of each object: the SHA-256 of its content, so that putting it again needs no reading."""
WHOLE_BYTES = 32 << 20
"""Up to here an object travels in one request."""
PART_BYTES = 16 << 20
PARTS_AT_ONCE = 4
ABANDONED_SECONDS = 24 * 3600.0
RACE_ATTEMPTS = 6
RACE_SECONDS = 0.25
PASSING_SECONDS = 2.0

logger = logging.getLogger(__name__)


class S3Store:
    """Objects below the prefix of a bucket. Implements :class:`brokers.repository.objects.ObjectStore`, and
    :class:`brokers.repository.retention.RetainingStore` where the bucket locks objects."""

    def __init__(self, section: BucketSection) -> None:
        self._section = section
        self._root = section.prefix
        self._bucket = Bucket(section)
        self._pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="s3-part")
        self._learning = threading.Lock()
        self._conditional: bool | None = None
        self._closing = threading.Event()

    def check(self) -> None:
        """Raises :class:`CalqueError` unless the bucket answers and the keys may use it."""
        self._bucket.check()
        if self.retains:
            self._bucket.check_locks()

    @property
    def conditional(self) -> bool:
        """Whether the endpoint keeps the condition of a put. Asks it at the first use."""
        with self._learning:
            if self._conditional is None:
                self._bucket.check()
                self._conditional = self._learn()
                self._remove_abandoned()
            return self._conditional

    def put(self, name: str, content: bytes | memoryview) -> None:
        digest = hashlib.sha256(content).hexdigest()
        only_new = self.conditional
        if not only_new and self._is_there(name, content, digest):
            return
        write = self._put_parts if len(content) > WHOLE_BYTES else self._put_whole
        for _ in range(RACE_ATTEMPTS):
            try:
                write(name, content, digest=digest, only_new=only_new)
            except Taken:
                if self._is_there(name, content, digest):
                    return
            except Racing:
                logger.info("%s is being put by somebody else", name)
            else:
                return
            self._closing.wait(RACE_SECONDS)
        raise temporary_error("unavailable", f"S3: {name} is being put and deleted by others all the time")

    def read(self, name: str, *, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            if self.look(name) is None:
                raise ObjectMissing(name)
            return b""
        key = self._root + name
        try:
            return self._bucket.get(key, offset=offset, length=length)
        except ObjectMissing:
            raise ObjectMissing(name) from None
        except Archived:
            asked = self._bucket.restore(key, days=self._section.restore_days, tier=self._section.restore_tier)
            raise CalqueError(archived(name, asked=asked)) from None

    def look(self, name: str) -> StoredObject | None:
        found = self._bucket.head(self._root + name)
        return None if found is None else StoredObject(name, found.size, found.modified)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        # Sorted here: SeaweedFS lists folder by folder, which is another order.
        start = len(self._root)
        lines = [line for line in self._bucket.list(self._root + prefix) if not line.key.endswith("/")]
        for line in sorted(lines):
            if line.key[start:] != PROBE:
                yield StoredObject(line.key[start:], line.size, line.modified)

    def delete(self, name: str) -> None:
        if self.retains:
            self._delete_versions(name)
            return
        self._bucket.delete(self._root + name)

    @property
    def retains(self) -> bool:
        """Whether the bucket itself locks objects, as the settings have it."""
        return self._section.object_lock is not None

    def retain(self, names: Iterable[str], *, until: str) -> None:
        """See :class:`brokers.repository.retention.RetainingStore`. Raises :class:`ObjectMissing`."""
        # Whole seconds, as S3 has them: the next one.
        moment = datetime.fromtimestamp(math.ceil(datetime.fromisoformat(until).timestamp()), UTC)
        if moment.timestamp() <= self.now() + PASSING_SECONDS:
            return  # it has passed, or has when S3 is asked: no object is locked until then
        for _ in self._pool.map(partial(self._retain, until=moment), names):
            continue

    def _retain(self, name: str, *, until: datetime) -> None:
        key, mode = self._root + name, self._section.object_lock
        if mode is None:
            return
        there = self._bucket.kept_until(key)
        if there is None or there < until:
            self._bucket.keep(key, mode=mode, until=until)

    def _delete_versions(self, name: str) -> None:
        """A bucket that locks objects keeps versions: what is only marked as deleted would stay for ever."""
        key = self._root + name
        for version in self._bucket.versions(key):
            if self._bucket.delete_version(key, version.id):
                continue
            until = None if version.marker else self._bucket.kept_until(key, version=version.id)
            if until is not None:
                raise ObjectRetained(f"{name} is locked until {until.isoformat()}")
            raise CalqueError(may_not_delete(name))

    def free_bytes(self) -> int | None:
        """Not known: S3 tells nobody."""
        return None

    def now(self) -> float:
        return self._bucket.now()

    def close(self) -> None:
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._bucket.close()

    def _put_whole(self, name: str, content: bytes | memoryview, *, digest: str, only_new: bool) -> None:
        self._bucket.put(
            self._root + name,
            bytes(content),
            metadata={DIGEST: digest},
            only_new=only_new,
            storage_class=self._class_of(name),
        )

    def _put_parts(self, name: str, content: bytes | memoryview, *, digest: str, only_new: bool) -> None:
        view = memoryview(content)
        upload = self._bucket.begin(self._root + name, metadata={DIGEST: digest}, storage_class=self._class_of(name))

        def part(number: int) -> Callable[[], str]:
            start = (number - 1) * PART_BYTES
            return lambda: self._bucket.part(upload, number, bytes(view[start : start + PART_BYTES]))

        count = -(-len(view) // PART_BYTES)
        sending = [self._pool.submit(part(number)) for number in range(1, count + 1)]
        try:
            self._bucket.complete(upload, [sent.result() for sent in sending], only_new=only_new)
        except BaseException:
            for sent in sending:
                sent.cancel()
            wait(sending)
            self._abandon(upload)
            raise

    def _abandon(self, upload: Upload) -> None:
        try:
            self._bucket.abandon(upload)
        except CalqueError as error:
            # Removed later, as those of a crash are.
            logger.warning("the upload of %s can't be taken back now: %s", upload.key, error)

    def _class_of(self, name: str) -> str | None:
        # Packs alone go to the storage class of the settings: all else is small and read often.
        return self._section.storage_class if name.startswith(PACKS) else None

    def _is_there(self, name: str, content: bytes | memoryview, digest: str) -> bool:
        """Whether this very object is there. Raises :class:`ObjectExists` if another one is."""
        found = self._bucket.head(self._root + name)
        if found is None:
            return False
        if found.size == len(content):
            known = found.metadata.get(DIGEST)
            if known == digest:
                return True
            # Somebody else's program put it there, or copied it without what was written on it.
            if known is None and self.read(name) == content:
                return True
        raise ObjectExists(name)

    def _learn(self) -> bool:
        """Whether the endpoint refuses to put the probe when it is there."""
        for _ in range(3):
            try:
                self._bucket.put(self._root + PROBE, b"calque", metadata={}, only_new=True)
            except Taken:
                return True
            except Racing:
                continue
            except Unconditional:
                break
        logger.warning("the endpoint keeps no condition on a put: objects are looked for before they are put")
        return False

    def _remove_abandoned(self) -> None:
        try:
            old = self._bucket.now() - ABANDONED_SECONDS
            for upload in self._bucket.uploads(self._root):
                if upload.begun < old:
                    self._bucket.abandon(upload)
        except CalqueError as error:
            # An endpoint that can't list uploads, or keys that may not: a rule of the bucket can do it instead.
            logger.warning("uploads that a crash left behind can't be removed: %s", error)
