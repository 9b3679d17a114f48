"""Whether the filesystem under a server's data lets files share blocks: tried with two files that have no name.

The directory is believed to be the server's only when the control file in it carries the server's identifier.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import struct
from pathlib import Path

from brokers.postgres.server import NotPermitted, Session

logger = logging.getLogger(__name__)

# from linux/fs.h: make one file share all blocks of another
_FICLONE = 0x40049409
_REFUSED = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EISDIR}
_BLOCK = b"\0" * 8192


async def shares_blocks(session: Session, *, data_dir: Path | None) -> bool:
    """Whether databases of this server, whose data are on this machine, can be cloned without copying them.
    ``False`` also where that can't be found out."""
    try:
        identifier = int(await session.value("SELECT system_identifier FROM pg_control_system()"))
        told = data_dir or Path(str(await session.value("SELECT current_setting('data_directory')")))
    except NotPermitted:
        logger.info("the server does not tell where its data are: databases are not cloned by reflink")
        return False
    return await asyncio.to_thread(_probe, told, identifier)


def _probe(data_dir: Path, identifier: int) -> bool:
    """Blocking."""
    try:
        with (data_dir / "global" / "pg_control").open("rb") as control:
            (found,) = struct.unpack("=Q", control.read(8))
        if found != identifier:
            logger.info("%s is the data directory of another server", data_dir)
            return False
        return reflinks(data_dir / "base")
    except (OSError, struct.error) as error:
        logger.info("whether %s shares blocks can't be found out: %s", data_dir, error)
        return False


def reflinks(directory: Path) -> bool:
    """Whether files in ``directory`` can share blocks. Blocking; leaves nothing. Raises ``OSError``."""
    source = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(source, _BLOCK)
        target = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno in _REFUSED:
                return False
            raise
        finally:
            os.close(target)
    finally:
        os.close(source)
    return True
