"""The signed manifests of images: `images/<image>/<serial>`. The last serial counts; earlier ones are what a crash
left."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from brokers.repository.errors import CorruptManifest, CorruptObject
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.holds import new_serial
from brokers.repository.format1.kinds import Kind
from brokers.repository.format1.sealing import Keys
from brokers.repository.manifest import Signature, canonical, check_name
from brokers.repository.objects import ObjectMissing, ObjectStore
from brokers.repository.opened import RecordedImage
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

    def __init__(self, objects: ObjectStore, keys: Keys, catalog: Catalog, *, key: SigningKey) -> None:
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._key = key

    def record(self, content: ImageContent) -> None:
        """Keeps the manifest, durably; again replaces it."""
        prefix = _prefix(content.image)
        before = [found.name for found in self._objects.list(prefix)]
        raw = canonical(content)
        if before and self._read(before[-1]).content == content:
            stale = before[:-1]
        else:
            signature = Signature("ed25519", self._key.public_hex, self._key.sign_hex(raw))
            name = prefix + max(new_serial(), *(f"{each.removeprefix(prefix)}0" for each in before), "")
            body = msgspec.json.encode(ImageObject(msgspec.Raw(raw), signature))
            self._objects.put(name, self._keys.seal(name, body))
            stale = before
        self._remove(stale)

    def forget(self, image: str) -> None:
        """Removes the manifest; nothing there is no error."""
        self._remove([found.name for found in self._objects.list(_prefix(image))])

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


def _prefix(image: str) -> str:
    return f"{IMAGES}{check_name(image, what='image id')}/"
