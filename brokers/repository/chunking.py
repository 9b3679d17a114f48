"""Content-defined chunking (FastCDC 2020 with the default gear table): a change in a stream changes the chunks
around it only, so that the next copy shares the rest."""

from collections.abc import Callable, Sequence

import pyfastcdc

from brokers.sdk.digests import Buffer

MIN_BYTES = 64 << 10
AVERAGE_BYTES = 256 << 10
MAX_BYTES = 1 << 20
CUT_AT_BYTES = 4 << 20
"""How many bytes are gathered before they are cut: enough to keep the copying of the rest cheap."""
GATHERED_BYTES = CUT_AT_BYTES + (2 << 20)
GATHERED_BUFFERS = 5
"""Those that are being stored, and the next one."""

if not pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"):
    # The pure Python fallback has 0.5 % of the speed; better not to start than to look broken.
    raise ImportError("pyfastcdc lacks its compiled extension: install with PYFASTCDC_REQUIRE_CYTHON=1")


def _cutter() -> pyfastcdc.FastCDC:
    return pyfastcdc.FastCDC(
        avg_size=AVERAGE_BYTES, min_size=MIN_BYTES, max_size=MAX_BYTES, normalized_chunking=1, seed=0
    )


def cut(whole: memoryview) -> list[memoryview]:
    """The chunks of something that is all there: those that a :class:`Chunker` makes of it. No bytes give none."""
    if len(whole) <= MIN_BYTES:
        return [whole] if len(whole) else []
    return [whole[chunk.offset : chunk.offset + chunk.length] for chunk in _cutter().cut_buf(whole)]


class Gathered:
    """Where pieces are put together. Memory that was never touched costs more than the copying, and what is freed in
    big pieces goes back to the system: so a buffer is used again as soon as nobody has a view of it."""

    def __init__(self) -> None:
        self._buffers: list[bytearray] = []

    def join(self, pieces: Sequence[Buffer], *, size: int) -> memoryview:
        """The pieces, one behind the other; `size` is that of all."""
        buffer = self._unseen() if size <= GATHERED_BYTES else None
        if buffer is None:
            return memoryview(b"".join(pieces))
        view, at = memoryview(buffer)[:size], 0
        for piece in pieces:
            view[at : at + len(piece)] = piece
            at += len(piece)
        return view

    def _unseen(self) -> bytearray | None:
        for buffer in self._buffers:
            try:
                # What is looked at can't change its length.
                buffer.append(0)
            except BufferError:
                continue
            buffer.pop()
            return buffer
        if len(self._buffers) == GATHERED_BUFFERS:
            return None
        self._buffers.append(bytearray(GATHERED_BYTES))
        return self._buffers[-1]


class Chunker:
    """Cuts what it's fed and hands each chunk to `emit` in order. The boundaries depend on the content only, not
    on how it was fed. `emit` may keep the view that it gets: its bytes don't change while there is a view of them. It
    keeps up to CUT_AT_BYTES more of them alive."""

    def __init__(self, emit: Callable[[memoryview], None]) -> None:
        self._emit = emit
        self._cutter = _cutter()
        self._pending: list[Buffer] = []
        self._bytes = 0
        self._gathered = Gathered()

    def feed(self, data: Buffer) -> None:
        if len(data) == 0:
            return
        self._pending.append(data)
        self._bytes += len(data)
        if self._bytes >= CUT_AT_BYTES:
            self._cut(final=False)

    def finish(self) -> None:
        """Cuts what is left and starts afresh. No bytes give no chunk."""
        if not self._bytes:
            return
        if self._bytes > MIN_BYTES:
            self._cut(final=True)
            return
        whole = b"".join(self._pending)
        self._pending, self._bytes = [], 0
        self._emit(memoryview(whole))

    def _cut(self, *, final: bool) -> None:
        if self._bytes < CUT_AT_BYTES:
            view = memoryview(b"".join(self._pending))
        else:
            view = self._gathered.join(self._pending, size=self._bytes)
        at = 0
        for chunk in self._cutter.cut_buf(view):
            # Where a chunk ends depends on up to MAX_BYTES after its start.
            if not final and len(view) - at < MAX_BYTES:
                break
            self._emit(view[at : at + chunk.length])
            at += chunk.length
        rest = view[at:]
        self._pending = [rest] if len(rest) else []
        self._bytes = len(rest)
