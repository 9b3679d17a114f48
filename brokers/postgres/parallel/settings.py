"""How big databases are copied and restored."""

from __future__ import annotations

import os

from pydantic import Field

from brokers.sdk.settings import Section


class ParallelSection(Section):
    """``connections`` is how many tables, or pieces of one, move at once, and how many indexes are built at once.
    Tables are cut into pieces of about ``piece_bytes`` on disk. Databases of less than ``from_bytes`` (on disk) are
    copied by one ``pg_dump``: for them it is as fast."""

    connections: int = Field(default_factory=lambda: max(2, min(4, os.cpu_count() or 2)), ge=1, le=64)
    from_bytes: int = Field(default=64 << 20, ge=0)
    piece_bytes: int = Field(default=64 << 20, ge=1 << 16)

    @property
    def big_bytes(self) -> int:
        """From which size on disk a table is worth a program that makes its indexes at once."""
        return self.piece_bytes // 16
