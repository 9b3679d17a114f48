"""Kept databases: of each restored copy an idle one, from which PostgreSQL makes the next data services by cloning.

A kept database belongs to a role of its own that can't log in, and nobody can connect to it: PostgreSQL clones only
what nobody uses. Which copy it is of, and with which contents, is in its comment, put there when it is complete; one
without the comment is half of one and is made anew or removed. Advisory locks keep apart those who make, clone and
remove one, other brokers on the same server included.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from brokers.postgres.databases import Databases, Mark
from brokers.postgres.instant.handover import NotHandedOver, copy_settings, hand_over
from brokers.postgres.instant.reflinks import shares_blocks
from brokers.postgres.instant.settings import InstantSection
from brokers.postgres.names import KEPT_PATTERN, database_of, kept_of
from brokers.postgres.rights import keep_hold_of
from brokers.postgres.server import Lost, Server, ServerError, Session
from brokers.sdk.copystream import CopyHead
from schemas.brokers import ResourceDescription
from schemas.problems import CalqueError

logger = logging.getLogger(__name__)

REFLINK = "reflink"
FILE_COPY = "file copy"
_CLONING_VERSION = 180000
_STRATEGY_VERSION = 150000
_SHARED_BLOCKS = "SET file_copy_method = 'clone'"


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="calque-kept", tag_field="by"):
    """The comment on a kept database that is complete, and on its role from the beginning. Times are seconds of Unix
    time, ``size`` is in bytes."""

    copy: str
    root: str
    size: int = 0
    used: float = 0.0

    @property
    def name(self) -> str:
        """The database and its role."""
        return kept_of(self.copy, self.root)

    def text(self) -> str:
        """As the comment says it."""
        return msgspec.json.encode(self).decode()


_KEPT_DATABASES = """
    SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname ~ %s ORDER BY datname
"""
_KEPT_ROLES = "SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname ~ %s ORDER BY rolname"
_LOCK = "SELECT pg_try_advisory_lock{how}(hashtextextended(%s, 0))"


class KeptDatabases:
    """The kept databases of one server."""

    def __init__(self, server: Server, databases: Databases, policy: InstantSection) -> None:
        self._server = server
        self._databases = databases
        self._policy = policy
        self._shared_blocks: bool | None = None

    async def clone(self, mark: Mark, head: CopyHead) -> str:
        """Make the data service of ``mark`` from the kept database of a copy, all but :meth:`Databases.finish`; how it
        was done. Empty when there is none, or when it can't be used: then nothing of the data service is there, or
        half of it that the next try removes.
        """
        try:
            async with self._server.session() as session:
                method = await self._method(session)
                wanted = Kept(copy=head.copy, root=head.merkle_root)
                if not method or not await _locked(session, wanted.name, shared=True):
                    return ""
                found = await _complete(session, wanted)
                if found is None:
                    return ""
                await self._clone(session, mark, found, method)
                return method
        except (ServerError, NotHandedOver) as error:
            if isinstance(error, Lost):
                raise
            logger.warning("the kept database of copy %s can't be cloned, it is restored: %s", head.copy, error)
            return ""

    async def keep(self, service_id: str, head: CopyHead) -> None:
        """Keep the copy that was just restored into a data service to which nobody has a login yet. A copy that can't
        be kept is no failure: the next data service is restored as this one was."""
        wanted = Kept(copy=head.copy, root=head.merkle_root)
        source = database_of(service_id)
        try:
            async with self._server.session() as session:
                method = await self._method(session)
                if not method or not await _locked(session, wanted.name):
                    return
                if await _complete(session, wanted) is not None:
                    return
                size = int(await session.value("SELECT pg_database_size(%s::text)", (source,)))
                if size > self._policy.bytes:
                    return
                kept = msgspec.structs.replace(wanted, size=size, used=time.time())
                await self._keep(session, kept, source=source, method=method)
                await self._evict(session)
        except (ServerError, NotHandedOver, CalqueError) as error:
            logger.warning("copy %s is not kept on the server: %s", head.copy, error)

    async def tidy(self) -> None:
        """Remove what is too old or too much, and what broken runs left."""
        async with self._server.session() as session:
            await self._evict(session)

    async def describe(self) -> tuple[ResourceDescription, ...]:
        """All kept databases and their roles, half ones too, as resources of ours."""
        async with self._server.session() as session:
            roles = {str(name): _read(comment) for name, comment in await session.rows(_KEPT_ROLES, (KEPT_PATTERN,))}
            databases = await session.rows(_KEPT_DATABASES, (KEPT_PATTERN,))
        found = [_description("database", name, _read(comment) or roles.get(name)) for name, comment in databases]
        return (*found, *(_description("role", name, kept) for name, kept in roles.items()))

    async def _method(self, session: Session) -> str:
        """How databases are cloned here; empty when they are not."""
        if self._policy.policy == "off":
            return ""
        if self._shared_blocks is None:
            self._shared_blocks = session.server_version >= _CLONING_VERSION and await shares_blocks(
                session, data_dir=self._policy.data_dir
            )
        if self._shared_blocks:
            return REFLINK
        return FILE_COPY if self._policy.policy == "always" else ""

    async def _clone(self, session: Session, mark: Mark, found: Kept, method: str) -> None:
        name = database_of(mark.service_id)
        settings = (_SHARED_BLOCKS,) if method == REFLINK else ()
        await self._databases.create(mark, template=_template(session, found.name), settings=settings)
        async with self._server.session(database=name) as inside:
            await hand_over(inside, old=found.name, new=name)
            await copy_settings(inside, source=found.name, target=name)
        used = msgspec.structs.replace(found, used=time.time())
        await session.comment("DATABASE", found.name, used.text())

    async def _keep(self, session: Session, kept: Kept, *, source: str, method: str) -> None:
        await _drop(session, kept.name)
        async with session.transaction():
            await session.run(f"CREATE ROLE {kept.name} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
            await keep_hold_of(session, kept.name)
            await session.comment("ROLE", kept.name, kept.text())
        try:
            if method == REFLINK:
                await session.run(_SHARED_BLOCKS)
            template = _template(session, source)
            await session.run(f"CREATE DATABASE {kept.name} TEMPLATE {template} CONNECTION LIMIT 1")
            await session.run(f"REVOKE ALL ON DATABASE {kept.name} FROM PUBLIC")
            async with self._server.session(database=kept.name) as inside:
                await hand_over(inside, old=source, new=kept.name, owned=source)
                await copy_settings(inside, source=source, target=kept.name)
            await session.run(f"ALTER DATABASE {kept.name} ALLOW_CONNECTIONS false")
            await session.comment("DATABASE", kept.name, kept.text())
        except (ServerError, NotHandedOver):
            await _drop(session, kept.name)
            raise

    async def _evict(self, session: Session) -> None:
        """Remove kept databases until the policy holds, those first that were not used for the longest time, and half
        ones. What somebody makes or clones now stays for now."""
        complete: list[Kept] = []
        doomed: list[str] = []
        for name, comment in await session.rows(_KEPT_DATABASES, (KEPT_PATTERN,)):
            kept = _read(comment)
            if kept is not None and kept.name == name:
                complete.append(kept)
            else:
                doomed.append(str(name))
        oldest, room = time.time() - self._policy.hours * 3600, self._policy.bytes
        count = 0 if self._policy.policy == "off" else self._policy.databases
        for kept in sorted(complete, key=lambda each: each.used, reverse=True):
            count -= 1
            room -= kept.size
            if count < 0 or room < 0 or kept.used < oldest:
                doomed.append(kept.name)
        there = {kept.name for kept in complete}
        roles = await session.rows(_KEPT_ROLES, (KEPT_PATTERN,))
        doomed += [str(name) for name, _ in roles if name not in there and name not in doomed]
        for name in doomed:
            async with _holding(session, name) as locked:
                if locked:
                    await _drop(session, name)
                    logger.info("the kept database %s is removed", name)


def _template(session: Session, name: str) -> str:
    """Older servers know one strategy only, which is that of the files."""
    return f"{name} STRATEGY FILE_COPY" if session.server_version >= _STRATEGY_VERSION else name


async def _complete(session: Session, wanted: Kept) -> Kept | None:
    """The kept database of the same copy with the same contents."""
    comment = await session.value(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (wanted.name,)
    )
    found = _read(comment)
    return found if found is not None and (found.copy, found.root) == (wanted.copy, wanted.root) else None


async def _drop(session: Session, name: str) -> None:
    await session.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await session.run(f"DROP ROLE IF EXISTS {name}")


async def _locked(session: Session, name: str, *, shared: bool = False) -> bool:
    """Hold a kept database for the rest of the session; ``False`` when somebody else does."""
    return bool(await session.value(_LOCK.format(how="_shared" if shared else ""), (name,)))


@asynccontextmanager
async def _holding(session: Session, name: str) -> AsyncIterator[bool]:
    locked = await _locked(session, name)
    try:
        yield locked
    finally:
        if locked:
            await session.value("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def _read(comment: str | None) -> Kept | None:
    try:
        return msgspec.json.decode(comment, type=Kept) if comment else None
    except msgspec.DecodeError:
        return None


def _description(kind: str, name: str, kept: Kept | None) -> ResourceDescription:
    labels = {"kept": "instant"} | ({"copy": kept.copy, "merkle_root": kept.root} if kept else {})
    size = kept.size if kept and kind == "database" else None
    return ResourceDescription(id=name, kind=kind, name=name, labels=labels, size=size)
