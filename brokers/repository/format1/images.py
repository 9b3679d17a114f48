"""The signed manifests of images: `images/<image>/<serial>`. The last serial counts; earlier ones are what a crash
left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from brokers.repository.errors import CorruptManifest, CorruptObject
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.commits import Commits
from brokers.repository.format1.holds import new_serial
from brokers.repository.format1.kinds import Kind
from brokers.repository.format1.packs import pack_name
from brokers.repository.format1.sealing import Keys
from brokers.repository.manifest import Signature, canonical, check_name
from brokers.repository.objects import ObjectMissing, ObjectRetained, ObjectStore
from brokers.repository.opened import RecordedImage
from brokers.repository.retention import CopyLocked, retains
from brokers.repository.signing import SigningKey, signature_holds
from schemas.unreadable import UNREADABLE
from schemas.values import ImageContent

IMAGES = Kind.IMAGE.value


class ImageObject(msgspec.Struct, frozen=True):
    """What an image's object holds, sealed; the signature is over the canonical JSON of `content`."""

    content: msgspec.Raw
    signature: Signature


class Images:
    """The image manifests of one repository. Threads may share it."""

    def __init__(
        self, objects: ObjectStore, keys: Keys, catalog: Catalog, commits: Commits, *, key: SigningKey
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._commits = commits
        self._key = key

    def record(self, content: ImageContent) -> None:
        """Keeps the manifest, durably; again replaces it. From here on a store that can refuse by itself to delete what
        is locked does so. Raises CopyLocked."""
        prefix = _prefix(content.image)
        before = [found.name for found in self._objects.list(prefix)]
        raw = canonical(content)
        last = self._read(before[-1]).content if before else None
        if last == content:
            name, stale = before[-1], before[:-1]
        else:
            if last is not None:
                self._check_unlocked(copies_of(last) - copies_of(content))
            signature = Signature("ed25519", self._key.public_hex, self._key.sign_hex(raw))
            name = prefix + max(new_serial(), *(f"{each.removeprefix(prefix)}0" for each in before), "")
            body = msgspec.json.encode(ImageObject(msgspec.Raw(raw), signature))
            self._objects.put(name, self._keys.seal(name, body))
            stale = before
        self._remove(stale)
        self._retain(name, content)

    def forget(self, image: str, *, operation: str = "") -> None:
        """Removes the manifest; nothing there is no error. Raises CopyLocked."""
        names = [found.name for found in self._objects.list(_prefix(image))]
        last = self._read(names[-1]).content if names else None
        if last is not None:
            self._check_unlocked(copies_of(last), operation=operation)
        try:
            self._remove(names)
        except ObjectRetained as error:
            raise CopyLocked(f"the manifest of image {image} is locked by the store") from error

    def _check_unlocked(self, copies: Iterable[str], *, operation: str = "") -> None:
        for copy in sorted(copies):
            self._commits.check_unlocked(copy, self._commits.of(copy), operation=operation)

    def _retain(self, name: str, content: ImageContent) -> None:
        """Has the store itself keep the copies of an image for as long as they are locked, and its manifest."""
        store = retains(self._objects)
        if store is None:
            return
        longest = ""
        for copy in sorted(copies_of(content)):
            for found in self._commits.of(copy):
                if found.commit is not None and found.commit.keep_until:
                    packs = [pack_name(pack) for pack in sorted(found.commit.pack_ids)]
                    store.retain([*packs, found.name], until=found.commit.keep_until)
                    longest = max(longest, found.commit.keep_until)
        if longest:
            store.retain([name], until=longest)

    def all(self) -> Iterator[RecordedImage]:
        """Every image manifest, by image id; a damaged one with its problem."""
        last: dict[str, str] = {}
        for found in self._objects.list(IMAGES):
            last[found.name.removeprefix(IMAGES).partition("/")[0]] = found.name
        self._catalog.drop(self._catalog.kept_names(IMAGES) - set(last.values()))
        for image in sorted(last):
            try:
                yield self._read(last[image])
            except ObjectMissing:
                continue

    def count(self) -> int:
        return len({found.name.removeprefix(IMAGES).partition("/")[0] for found in self._objects.list(IMAGES)})

    def _read(self, name: str) -> RecordedImage:
        image = name.removeprefix(IMAGES).partition("/")[0]
        try:
            return self._checked(image, name)
        except (CorruptObject, CorruptManifest) as error:
            return RecordedImage(image, problem=str(error))

    def _checked(self, image: str, name: str) -> RecordedImage:
        kept = self._catalog.kept(name)
        sealed = self._objects.read(name) if kept is None else kept
        try:
            record = msgspec.json.decode(self._keys.unseal(name, sealed), type=ImageObject)
            content = msgspec.json.decode(record.content, type=ImageContent)
        except (*UNREADABLE, ValueError) as error:
            raise CorruptManifest(f"the manifest of image {image} can't be read: {error}") from error
        signature = record.signature
        if (
            content.image != image
            or signature.algorithm != "ed25519"
            or not signature_holds(
                public_hex=signature.public_key, signature_hex=signature.value, message=bytes(record.content)
            )
        ):
            raise CorruptManifest(f"the signature of image {image} doesn't fit")
        if kept is None:
            self._catalog.keep(name, sealed)
        return RecordedImage(image, content, signature.public_key)

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._objects.delete(name)
        self._catalog.drop(names)


def copies_of(content: ImageContent) -> set[str]:
    """The copies that the image names."""
    return {part.copy for instance in content.instances for part in instance.parts}


def _prefix(image: str) -> str:
    return f"{IMAGES}{check_name(image, what='image id')}/"
