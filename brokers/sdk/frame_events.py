"""What frames say (`brokers.sdk.frames`): values, without a word of how they travel."""

import msgspec

from brokers.sdk.digests import Buffer


class FrameError(ValueError):
    """The peer sent what the format doesn't allow, or its body was cut short."""


class EntryBegin(msgspec.Struct, frozen=True):
    """The head of an entry; its bytes follow. `size` is in bytes, and checked when the entry ends."""

    key: str
    size: int
    metadata: dict[str, str] = {}


class Data(msgspec.Struct, frozen=True):
    """Some bytes of the stream or of the open entry. A DATA frame may come as several of these."""

    data: Buffer


class DataAt(msgspec.Struct, frozen=True):
    """Some bytes of the open entry, which lie in the file that was passed: offset and length."""

    at: int
    length: int


class EntryEnd(msgspec.Struct, frozen=True):
    """The entry is whole: its size in bytes and the BLAKE3 of its bytes; no digest if the bytes were not sent but lie
    in a file that was passed."""

    size: int
    digest: str


class End(msgspec.Struct, frozen=True):
    """The body is whole: bytes of plaintext, entries (None unless entries), and the digest of the part; none if a file
    was passed or a range kept: not all digests are known then."""

    size: int
    digest: str
    entries: int | None = None


class Failure(msgspec.Struct, frozen=True):
    """The sender can't go on. `temporary` says whether trying again may help."""

    code: str
    message: str
    temporary: bool = False


class StoredChunk(msgspec.Struct, frozen=True):
    """One chunk as it lies in the repository: digest of its plaintext, and the zstd frame."""

    digest: bytes
    data: Buffer


class KnownEntry(msgspec.Struct, frozen=True):
    """An entry of an earlier copy: what an entry line says. Size in bytes, digest BLAKE3 of its bytes."""

    key: str
    size: int
    metadata: dict[str, str]
    digest: str


_KNOWN_DECODER = msgspec.json.Decoder(KnownEntry)


class KeptEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry whose bytes are those of an entry of the parent copy, and are not sent: `key` and `metadata` as they
    are now, `size` and `digest` as they were and are. `of` is the key that it had there, if that was another one."""

    key: str
    metadata: dict[str, str]
    size: int
    digest: str
    of: str | None = None


class KeptRange(msgspec.Struct, frozen=True):
    """Entries that are kept as they are, by their numbers in the part of the parent copy, whose digest is `of`: `count`
    from `first` (0 is the first one), with `size` bytes together."""

    first: int
    count: int
    size: int
    of: str


class Kept(msgspec.Struct, frozen=True):
    """Some entries that are kept, in order."""

    entries: list[KeptEntry]


class PlacedEntry(msgspec.Struct, frozen=True):
    """A whole entry whose bytes lie in the file that was passed: in pieces, each an offset and a length."""

    key: str
    size: int
    metadata: dict[str, str]
    pieces: tuple[tuple[int, int], ...]


class Placed(msgspec.Struct, frozen=True):
    """Some entries in order; together they are small enough to be taken in at once."""

    entries: list[PlacedEntry]


class Known(msgspec.Struct, frozen=True):
    """The lines of some entries, as they count into the digest of the part."""

    lines: Buffer

    def entries(self) -> list[KnownEntry]:
        """Raises FrameError."""
        try:
            return _KNOWN_DECODER.decode_lines(self.lines)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FrameError(f"a KNOWN frame can't be read: {error}") from error
