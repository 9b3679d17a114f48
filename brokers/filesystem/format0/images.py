"""The signed manifests of images that lie beside their copies: `images/<image>.json`. With them, what a site held
can be listed from its repository alone."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from brokers.filesystem.format0.files import Files
from brokers.repository.errors import CorruptManifest
from brokers.repository.manifest import Signature, canonical, check_name
from brokers.repository.opened import RecordedImage
from brokers.repository.signing import SigningKey, signature_holds
from schemas.unreadable import UNREADABLE
from schemas.values import ImageContent


class ImageRecord(msgspec.Struct, frozen=True):
    """What an image's file holds; the signature is over the canonical JSON of `content`."""

    format: int
    content: ImageContent
    signature: Signature


class Images:
    """The image manifests of one repository. Blocking."""

    def __init__(self, directory: Path, *, key: SigningKey, files: Files) -> None:
        self._directory = directory
        self._key = key
        self._files = files
        files.make_directory(directory)

    def record(self, content: ImageContent) -> None:
        """Keeps the manifest, durably; again replaces it."""
        signature = Signature("ed25519", self._key.public_hex, self._key.sign_hex(canonical(content)))
        self._files.replace(self._path(content.image), canonical(ImageRecord(0, content, signature)))

    def all(self) -> Iterator[RecordedImage]:
        """Every image manifest, by image id; a damaged one with its problem."""
        for image in self.names():
            try:
                record = self.read(image)
            except FileNotFoundError:
                continue
            except CorruptManifest as error:
                yield RecordedImage(image, problem=str(error))
            else:
                yield RecordedImage(image, record.content, record.signature.public_key)

    def read(self, image: str) -> ImageRecord:
        """The manifest, its signature checked. Raises CorruptManifest, FileNotFoundError."""
        try:
            record = msgspec.json.decode(self._path(image).read_bytes(), type=ImageRecord)
        except UNREADABLE as error:
            raise CorruptManifest(f"the manifest of image {image} can't be read: {error}") from error
        signature = record.signature
        message = canonical(record.content)
        if not signature_holds(public_hex=signature.public_key, signature_hex=signature.value, message=message):
            raise CorruptManifest(f"the signature of image {image} doesn't fit")
        return record

    def forget(self, image: str) -> None:
        """Removes the manifest; nothing there is no error."""
        self._files.unlink(self._path(image))
        self._files.sync_path(self._directory)

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._directory.glob("*.json") if not path.name.startswith("."))

    def _path(self, image: str) -> Path:
        return self._directory / f"{check_name(image, what='image id')}.json"
