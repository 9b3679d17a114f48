"""zstd, as chunks are stored: one frame per chunk, its content size in the header."""

import threading

import zstandard

from brokers.sdk.digests import Buffer

LEVEL = 1
_local = threading.local()


class NotCompressed(ValueError):
    """The bytes are not one whole zstd frame of the expected content size."""


def _of_thread() -> tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor]:
    # A context costs hundreds of KiB to make and may not be shared by threads.
    pair: tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor] | None = getattr(_local, "pair", None)
    if pair is None:
        pair = (zstandard.ZstdCompressor(level=LEVEL), zstandard.ZstdDecompressor())
        _local.pair = pair
    return pair


def compress(data: Buffer) -> bytes:
    return _of_thread()[0].compress(data)


def decompress(data: Buffer, *, size: int) -> bytes:
    """The content, which must be `size` bytes. Raises NotCompressed; a lying header allocates nothing."""
    try:
        parameters = zstandard.get_frame_parameters(data)
        if parameters.content_size != size:
            raise NotCompressed(f"its frame says {parameters.content_size} bytes instead of {size}")
        plain = _of_thread()[1].decompress(data, max_output_size=max(size, 1), allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise NotCompressed(str(error)) from error
    if len(plain) != size:
        raise NotCompressed(f"it holds {len(plain)} bytes instead of {size}")
    return plain


def decompress_any(data: Buffer) -> bytes:
    """The content of a frame that is known to be ours (it was authenticated), whatever its size. Raises
    NotCompressed."""
    try:
        return _of_thread()[1].decompress(data)
    except zstandard.ZstdError as error:
        raise NotCompressed(str(error)) from error
