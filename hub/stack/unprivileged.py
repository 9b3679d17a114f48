"""Running a server that refuses to be root: which user, what that user can reach, where it gets what it can't.

PostgreSQL exits when it is started by root. Started by root, a stack runs it as `postgres` when the
machine has that user and as `nobody` otherwise; no user is ever added to a machine. That user may be
unable to walk to the stack's home or to the installed programs (a home below a closed directory of root, say).
Then programs are copied to a temporary directory, and a data directory is entered by the supervisor
before it gives up root: the server reaches it as `/proc/self/cwd`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hub.stack.errors import StackError
from hub.stack.files import read_json, write_json

CANDIDATES = ("postgres", "nobody")
ENTERED = Path("/proc/self/cwd")


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of the machine by its numeric ids."""

    user: int
    group: int


def account_for_servers() -> Account | None:
    """Whom to run as when this process is root; None when it is not, so that nothing is to be switched."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(user=entry.pw_uid, group=entry.pw_gid)
    raise StackError(
        f"PostgreSQL does not run as root and this machine has none of the users {', '.join(CANDIDATES)}: "
        "add one, or start the stack as an ordinary user"
    )


def can_reach(path: Path, account: Account | None) -> bool:
    """Whether the user may walk to the path and into it. None stands for this process's own user."""
    if account is None:
        return os.access(path, os.X_OK)
    return all(_may_search(step, account) for step in (path, *path.resolve().parents))


def _may_search(path: Path, account: Account) -> bool:
    status = path.stat()
    if status.st_uid == account.user:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.group:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


class ShortPlace:
    """A temporary directory of one server, for sockets (whose paths must be short) and staged programs.

    Its name is kept in a file of the home, so that a start after a kill removes the former one.
    """

    def __init__(self, record: Path) -> None:
        self._record = record

    @property
    def path(self) -> Path | None:
        """The directory made last, None when there is none."""
        known = read_json(self._record)
        return None if known is None else Path(known["directory"])

    def choose(self) -> Path:
        """A new directory in place of the former one, which is removed."""
        self.remove()
        directory = Path(tempfile.mkdtemp(prefix="calque-"))
        write_json(self._record, {"directory": str(directory)})
        directory.chmod(0o755)
        return directory

    def make_again(self) -> bool:
        """Make the chosen directory anew if it was removed since; True when it was.

        Raises `StackError` when another user has made one of that name.
        """
        directory = self.path
        if directory is None:
            raise StackError(f"{self._record} is missing: start the stack again")
        try:
            directory.mkdir(mode=0o755)
        except FileExistsError:
            if not _is_ours(directory):
                raise StackError(f"{directory} belongs to another user: start the stack again") from None
            return False
        write_json(self._record, {"directory": str(directory)})
        directory.chmod(0o755)
        return True

    def clear(self) -> None:
        """Remove the directory, if it still is ours, but keep its name for `make_again`."""
        directory = self.path
        if directory is not None and directory.exists() and _is_ours(directory):
            shutil.rmtree(directory)

    def remove(self) -> None:
        """Remove the directory and forget its name."""
        self.clear()
        self._record.unlink(missing_ok=True)


def _is_ours(directory: Path) -> bool:
    return directory.is_dir() and not directory.is_symlink() and directory.stat().st_uid == os.geteuid()
