"""A physical copy becomes a server again: its files, its log up to the moment, and nobody's old credentials."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import msgspec

from brokers.postgres.databases import Mark
from brokers.postgres.names import DATABASE_PATTERN, database_of
from brokers.postgres.physical.account import identity
from brokers.postgres.physical.cluster import SUPERUSER, Cluster
from brokers.postgres.physical.copies import BASE_PART, CLUSTER_PART, LOG_PART, SEGMENT, ClusterPart
from brokers.postgres.physical.files import LOG_DIRECTORY
from brokers.postgres.physical.filling import Filler
from brokers.postgres.programs import Program
from brokers.postgres.server import Server
from brokers.sdk.copystream import CopyReader
from brokers.sdk.errors import permanent_error
from brokers.sdk.progress import Reporter
from schemas.brokers import CopyGrant

RECOVERY_SECONDS = 24 * 3600.0
_POINT = re.compile(r"calque_[0-9a-f]{24}")
_SET_SEQUENCE = "SELECT setval(s, %s::bigint) FROM to_regclass(%s::text) AS s WHERE s IS NOT NULL"


async def restore(cluster: Cluster, mark: Mark, grant: CopyGrant, *, major: int, reporter: Reporter) -> int:
    """All of the copy as a running server that holds the data service of ``mark``, but for
    :meth:`Databases.finish`; how many bytes went in. Raises ``wrong_version`` before anything is made."""
    head = await CopyReader(grant).describe()
    sizes = {part.name: part.size for part in head.parts}
    if missing := sorted({CLUSTER_PART, BASE_PART, LOG_PART} - sizes.keys()):
        raise permanent_error("wrong_copy", f"the copy has no part {missing[0]!r}", field="restore")
    told = await _told(grant)
    if told.major != major:
        raise permanent_error(
            "wrong_version",
            f"the copy is of the files of PostgreSQL {told.major}, and the programs here are of PostgreSQL {major}",
            field="restore",
            remedy=f"restore it at a site with PostgreSQL {told.major}, or save it anew from a service of another plan",
        )
    done, total = 0, sum(sizes.values())

    def passed(count: int) -> None:
        nonlocal done
        done += count
        reporter.report(done=done, total=total)

    reader = CopyReader(grant, progress=passed)
    entries = {part.name for part in head.parts if part.entries is not None}
    filler = await asyncio.to_thread(_filler, cluster, tarred=BASE_PART not in entries)
    try:
        if BASE_PART in entries:
            await asyncio.to_thread(filler.make, told.directories)
            if not await reader.take_entries(BASE_PART, lambda events: filler.take(BASE_PART, events)):
                async for entry, blocks in reader.read_entries(BASE_PART):
                    await filler.file(entry.key, blocks)
        else:
            await _unpack(cluster, reader)
        async for entry, blocks in reader.read_entries(LOG_PART):
            if not SEGMENT.fullmatch(entry.key):
                raise permanent_error("wrong_copy", f"{entry.key!r} is no file of a log", field="restore")
            await filler.file(f"{LOG_DIRECTORY}/{entry.key}", blocks)
        await filler.finish()
    finally:
        await filler.close()
    await _recover(cluster, told, mark)
    return total


async def _told(grant: CopyGrant) -> ClusterPart:
    text = b"".join([bytes(block) async for block in CopyReader(grant).read_stream(CLUSTER_PART)])
    try:
        told = msgspec.json.decode(text, type=ClusterPart)
    except msgspec.DecodeError as error:
        raise permanent_error(
            "wrong_copy", f"its part {CLUSTER_PART!r} can't be read: {error}", field="restore"
        ) from None
    if not _POINT.fullmatch(told.point) or not re.match(DATABASE_PATTERN, told.database):
        raise permanent_error("wrong_copy", f"its part {CLUSTER_PART!r} says what it can't say", field="restore")
    return told


def _filler(cluster: Cluster, *, tarred: bool) -> Filler:
    cluster.new_data(shut=not tarred)
    return Filler(cluster.data, cluster.account, there=(LOG_DIRECTORY,) if tarred else ())


async def _unpack(cluster: Cluster, reader: CopyReader) -> None:
    """A base of the first format. As the server's user, in the data directory: a tar can't put anything elsewhere than
    that user may."""
    tar = shutil.which("tar")
    if tar is None:
        raise permanent_error("program_missing", "there is no program tar", remedy="install it beside the broker")
    arguments = ("--extract", "--file=-", "--no-same-owner", "--preserve-permissions")
    program = await Program.start(
        Path(tar), arguments, environment={"LC_ALL": "C"}, stdin=True, cwd=cluster.data, **identity(cluster.account)
    )
    try:
        await program.feed(reader.read_stream(BASE_PART))
    finally:
        await program.stop()


async def _recover(cluster: Cluster, told: ClusterPart, mark: Mark) -> None:
    """Play the log up to the moment while nobody but the broker gets in, and make all credentials new."""
    recovery = {
        "restore_command": "'false'",  # all of the log is there
        "recovery_target_name": f"'{told.point}'",
        "recovery_target_timeline": "'current'",
        "recovery_target_action": "'promote'",
        "recovery_init_sync_method": "syncfs",
        "hot_standby": "off",
    }
    async with cluster.private_way() as (sockets, way):
        await asyncio.to_thread(cluster.configure, sockets=sockets, more=recovery)
        await asyncio.to_thread(cluster.put, "recovery.signal", "")
        await cluster.start(seconds=RECOVERY_SECONDS)
        await cluster.accepts(way, seconds=RECOVERY_SECONDS)
        await _make_ours(way, cluster, told, mark)
        await asyncio.to_thread(cluster.configure)
        async with way.session() as session:
            await session.value("SELECT pg_reload_conf()")
    await cluster.accepts()


async def _make_ours(way: Server, cluster: Cluster, told: ClusterPart, mark: Mark) -> None:
    """The database and its owner get the names of this data service; logins of the source's bindings go."""
    old, new = told.database, database_of(mark.service_id)
    async with way.session(database=old) as session:
        logins = await session.rows(
            "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname <> %s ORDER BY rolname", (SUPERUSER,)
        )
        for (login,) in logins:
            name = await session.value("SELECT quote_ident(%s::text)", (login,))
            if str(login).startswith(f"{old}_"):
                await session.run(f"REASSIGN OWNED BY {name} TO {old}")
                await session.run(f"DROP OWNED BY {name}")
                await session.run(f"DROP ROLE {name}")
            else:
                await session.run(f"ALTER ROLE {name} NOLOGIN PASSWORD NULL")
        for sequence, value in told.sequences.items():  # those that are there: what is not had been dropped meanwhile
            await session.rows(_SET_SEQUENCE, (value, sequence))
    async with way.session() as session:
        await session.run(f"COMMENT ON DATABASE {old} IS NULL")
        if old != new:
            await session.run(f"ALTER DATABASE {old} RENAME TO {new}")
            await session.run(f"ALTER ROLE {old} RENAME TO {new}")
        await session.comment("ROLE", new, mark.text())
        password = cluster.new_password()
        verifier = session.verifier(user=SUPERUSER, password=password.value)
        quoted = await session.value("SELECT quote_literal(%s::text)", (verifier,))
        await session.run(f"ALTER ROLE {SUPERUSER} PASSWORD {quoted}")
