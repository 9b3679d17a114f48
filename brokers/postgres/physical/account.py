"""Whom a server runs as: PostgreSQL refuses to be root. Programs that such a server needs are started as its user, in
its data directory, which they reach as ``/proc/self/cwd`` even where their user can't walk to it."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from brokers.postgres.programs import ProgramFailed
from brokers.sdk.errors import permanent_error

CANDIDATES = ("postgres", "nobody")
HERE = "/proc/self/cwd"
_SAID_BYTES = 2000


class Account(NamedTuple):
    """A user of the machine by its numeric ids; ``switch`` is false for the broker's own."""

    user: int
    group: int
    switch: bool

    def own(self, path: Path) -> None:
        """Give ``path`` to the user."""
        if self.switch:
            os.chown(path, self.user, self.group)

    def may_run(self, program: Path) -> bool:
        """Whether the user can walk to ``program`` and run it."""
        if not self.switch:
            return os.access(program, os.X_OK)
        return all(self._may_search(step) for step in (program, *program.resolve().parents))

    def _may_search(self, path: Path) -> bool:
        status = path.stat()
        if status.st_uid == self.user:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.group:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def account_for(user: str | None) -> Account:
    """Whom servers run as. Raises ``no_account`` when there is nobody."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    for name in (user,) if user else CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, switch=True)
    raise permanent_error(
        "no_account",
        f"PostgreSQL does not run as root, and there is no user {user or ' or '.join(CANDIDATES)}",
        field="dedicated.user",
        remedy="name a user of this machine, or start the broker as an ordinary user",
    )


async def run_as(
    account: Account,
    program: Path,
    arguments: Sequence[str],
    *,
    directory: Path,
    seconds: float,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run ``program`` to its end in ``directory``; what it wrote, or nothing when that went to ``log``, which processes
    that stay behind go on writing to. Raises :class:`ProgramFailed` and ``TimeoutError``."""
    output = asyncio.subprocess.PIPE if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            str(program),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            cwd=directory,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", **(environment or {})},
            start_new_session=True,
            **identity(account),
        )
    finally:
        if log is not None:
            os.close(output)
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    text = (said or b"").decode(errors="replace")
    if process.returncode:
        last = text.strip().rpartition("\n")[2] if log is None else await asyncio.to_thread(last_line, log)
        raise ProgramFailed(program.name, code=process.returncode, last_line=last)
    return text


class Identity(TypedDict, total=False):
    """As which user a process is started."""

    user: int
    group: int
    extra_groups: list[int]


def identity(account: Account) -> Identity:
    """What a new process has to be told to run as the account."""
    return {"user": account.user, "group": account.group, "extra_groups": []} if account.switch else {}


def last_line(log: Path) -> str:
    """What a program said last of why it ended. Blocking."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _SAID_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    return (fatal or lines or ["it said nothing"])[-1]
