"""What decoding raises for bytes that somebody else wrote: one tuple, since each of its members was once forgotten."""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Not of the form, not of the type, not of the encoding, or nested so deep that a decoder gives up."""
