"""The manifest of a copy: what it holds, how to check it, who signed it. See `docs/repository-format.md` and
`docs/repository-format-0.md`, section "Manifest". Values only; nothing here touches the disk."""

import re
from typing import Any

import msgspec

from brokers.repository.errors import CorruptManifest, InvalidName
from brokers.repository.signing import SigningKey, signature_holds
from brokers.sdk.digests import digest_bytes, is_digest
from brokers.sdk.frames import Layout
from schemas.unreadable import UNREADABLE

FORMAT = 0
PORTABLE_FORMAT = 1
"""The manifest of format 1 says nothing of chunks: the same bytes are true wherever and however the copy is stored."""
PLAIN_DOMAIN = "blake3"
"""The domain of repositories that name chunks by the plain BLAKE3 of their bytes: all of format 0."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(name: str, *, what: str) -> str:
    """A copy id or part name: 1 to 128 of letters, digits, `.`, `_`, `-`, starting with a letter or digit.

    Raises InvalidName."""
    if not _NAME.fullmatch(name):
        raise InvalidName(f"{name[:140]!r} is no {what}: use 1 to 128 letters, digits, '.', '_' or '-'")
    return name


class ChunkRef(msgspec.Struct, frozen=True, array_like=True):
    """A chunk by the BLAKE3 of its plaintext, and the plaintext's size in bytes."""

    digest: str
    size: int


class IndexEntry(msgspec.Struct, frozen=True):
    """One entry of an entries part, as a line of the part's index."""

    key: str
    size: int
    digest: str
    chunks: tuple[ChunkRef, ...]
    metadata: dict[str, str] = {}


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part. `size` counts bytes of plaintext; `digest` is the BLAKE3 of the stream, or of the entry lines
    (`brokers.sdk.frames.entry_line`). Its chunks stand in `chunks`, or in the index: JSON lines of ChunkRef
    (stream) or IndexEntry (entries), whose own chunks stand in `index`. In a manifest of format 1 all three are
    left out."""

    name: str
    layout: str
    media_type: str
    size: int
    digest: str
    chunk_count: int | None = None
    entries: int | None = None
    chunks: tuple[ChunkRef, ...] | None = None
    index: tuple[ChunkRef, ...] | None = None

    def portable(self) -> "Part":
        """The part as it is wherever the copy lies, without its chunks."""
        return msgspec.structs.replace(self, chunk_count=None, chunks=None, index=None)

    @property
    def is_entries(self) -> bool:
        return self.layout == Layout.ENTRIES.value


class DataServiceInfo(msgspec.Struct, frozen=True):
    """Of what the copy was taken: broker kind and name, engine and its version."""

    kind: str = ""
    engine: str = ""
    version: str = ""


class CopyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the one who opens a copy says about it. No secrets: all of this is readable in the repository.
    `created` is RFC 3339, UTC; `source` names site, instance and data service; `parent` the copy before."""

    data_service: DataServiceInfo = DataServiceInfo()
    data_class: str = "restricted"
    level: dict[str, Any] = {}
    source: dict[str, str] = {}
    created: str = ""
    attributes: dict[str, Any] = {}
    parent: str = ""


class Signature(msgspec.Struct, frozen=True):
    algorithm: str
    public_key: str
    value: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a copy is. `parent` is the copy that it was taken on top of, `software` what wrote it. Sizes are bytes:
    `logical_bytes` of plaintext, `stored_bytes` of the copy's distinct chunks as they were stored first (those shared
    with other copies count here too)."""

    format: int
    copy: str
    created: str
    data_service: DataServiceInfo
    data_class: str
    parts: tuple[Part, ...]
    logical_bytes: int
    stored_bytes: int
    merkle_root: str
    level: dict[str, Any] = {}
    source: dict[str, str] = {}
    attributes: dict[str, Any] = {}
    parent: str = ""
    software: str = ""
    signature: Signature | None = None

    def part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)


def canonical(value: object) -> bytes:
    """Canonical JSON: UTF-8, keys sorted, no white space."""
    return msgspec.json.encode(value, order="sorted")


def merkle_root(parts: tuple[Part, ...]) -> str:
    """The root over the plaintext of all parts, sorted by name. A leaf is BLAKE3(0x00 + canonical JSON of name,
    layout, media type, size, entries, digest), a node BLAKE3(0x01 + left + right); an odd one moves up as it is."""
    level = [
        digest_bytes(
            b"\x00"
            + canonical(
                {
                    "digest": part.digest,
                    "entries": part.entries,
                    "layout": part.layout,
                    "media_type": part.media_type,
                    "name": part.name,
                    "size": part.size,
                }
            )
        )
        for part in sorted(parts, key=lambda part: part.name)
    ]
    if not level:
        return digest_bytes(b"\x00").hex()
    while len(level) > 1:
        pairs = [
            digest_bytes(b"\x01" + level[at] + level[at + 1]) if at + 1 < len(level) else level[at]
            for at in range(0, len(level), 2)
        ]
        level = pairs
    return level[0].hex()


def seal(manifest: Manifest, key: SigningKey) -> bytes:
    """The bytes of the signed manifest, as they lie in `manifest.json` and travel."""
    plain = msgspec.structs.replace(manifest, signature=None)
    signature = Signature("ed25519", key.public_hex, key.sign_hex(canonical(plain)))
    return canonical(msgspec.structs.replace(plain, signature=signature))


def parse(raw: bytes, *, copy: str) -> Manifest:
    """Reads and checks the bytes of a manifest: canonical form, signature, copy id, Merkle root, sums.

    Raises CorruptManifest. One flipped bit anywhere is noticed."""
    try:
        tree = msgspec.json.decode(raw)
        manifest = msgspec.json.decode(raw, type=Manifest)
    except UNREADABLE as error:
        raise CorruptManifest(f"the manifest can't be read: {error}", copy=copy) from error
    if manifest.format not in (FORMAT, PORTABLE_FORMAT):
        raise CorruptManifest(f"the manifest has format {manifest.format}, this version reads 0 and 1", copy=copy)
    if canonical(tree) != raw:
        raise CorruptManifest("the manifest is not in canonical form: it was changed after signing", copy=copy)
    signature = manifest.signature
    unsigned = {name: value for name, value in tree.items() if name != "signature"}
    if (
        signature is None
        or signature.algorithm != "ed25519"
        or not signature_holds(
            public_hex=signature.public_key, signature_hex=signature.value, message=canonical(unsigned)
        )
    ):
        raise CorruptManifest("the signature doesn't fit: the manifest was changed after signing", copy=copy)
    if manifest.copy != copy:
        raise CorruptManifest(f"the manifest is that of copy {manifest.copy}", copy=copy)
    _check_sums(manifest)
    return manifest


def _check_sums(manifest: Manifest) -> None:
    names = [part.name for part in manifest.parts]
    if len(set(names)) != len(names) or not all(_NAME.fullmatch(name) for name in names):
        raise CorruptManifest("part names repeat or are malformed", copy=manifest.copy)
    for part in manifest.parts:
        if part.layout not in (Layout.STREAM.value, Layout.ENTRIES.value):
            raise CorruptManifest(f"unknown layout {part.layout!r}", copy=manifest.copy, part=part.name)
        if manifest.format == FORMAT:
            check_layout(part, copy=manifest.copy)
        elif part != part.portable():
            raise CorruptManifest("names chunks", copy=manifest.copy, part=part.name)
    if merkle_root(manifest.parts) != manifest.merkle_root:
        raise CorruptManifest("the Merkle root is not that of its parts", copy=manifest.copy)
    if sum(part.size for part in manifest.parts) != manifest.logical_bytes:
        raise CorruptManifest("the sizes of the parts don't add up", copy=manifest.copy)


def check_layout(part: Part, *, copy: str) -> None:
    """Whether the part says where its bytes are. Raises CorruptManifest."""
    if part.chunk_count is None or (part.chunks is None) == (part.index is None):
        raise CorruptManifest("needs either chunks or an index", copy=copy, part=part.name)
    if part.is_entries and part.index is None:
        raise CorruptManifest("needs an index", copy=copy, part=part.name)
    if not all(is_digest(ref.digest) for ref in (part.chunks or part.index or ())):
        raise CorruptManifest("names a chunk by no digest", copy=copy, part=part.name)
