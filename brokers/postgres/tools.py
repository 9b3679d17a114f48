"""Which programs of PostgreSQL are there, and whether they can read a server."""

from __future__ import annotations

import re
from pathlib import Path

from brokers.postgres.programs import Program
from brokers.postgres.server import Session
from brokers.sdk.errors import permanent_error

_VERSION = re.compile(rb"(\d+)(?:\.\d+)?")


class Tools:
    """The programs in ``bin_dir``."""

    def __init__(self, bin_dir: Path) -> None:
        self.pg_dump = bin_dir / "pg_dump"
        self._majors: dict[int, int] = {}

    async def check_dump(self, session: Session) -> None:
        """Raises ``program_too_old`` when the server is newer than ``pg_dump``, which then refuses to read it."""
        ours, its = await self._major(), session.server_version // 10000
        if ours < its:
            raise permanent_error(
                "program_too_old",
                f"the broker's pg_dump is of PostgreSQL {ours} and can't read a server of version {its}",
                field="bin_dir",
                remedy=f"give the broker programs of PostgreSQL {its} or newer",
            )

    async def leaves_out_rows(self) -> bool:
        """Whether ``pg_dump`` can be given a file that names tables whose rows it shall not read (from 17 on)."""
        return await self._major() >= 17

    async def _major(self) -> int:
        """Asked again when the program was replaced."""
        try:
            stamp = self.pg_dump.stat().st_mtime_ns
        except OSError as error:
            raise permanent_error(
                "program_missing", f"{self.pg_dump}: {error.strerror}", field="bin_dir", remedy="check bin_dir"
            ) from None
        if stamp not in self._majors:
            program = await Program.start(self.pg_dump, ("--version",), environment={"LC_ALL": "C"})
            try:
                said = b"".join([block async for block in program.blocks()])
            finally:
                await program.stop()
            found = _VERSION.search(said)
            if found is None:
                raise permanent_error("program_missing", f"{self.pg_dump} does not say its version", field="bin_dir")
            self._majors = {stamp: int(found.group(1))}
        return self._majors[stamp]
