"""Whether a server has all that a dump asks of it, found out before anything is restored: what is missing would else be
found in the middle of it, in the words of whatever failed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from brokers.postgres.carrying import NAME
from brokers.postgres.contents import Contents, Entry
from brokers.postgres.names import quoted
from brokers.postgres.server import Lost, ServerError, Session
from brokers.sdk.errors import permanent_error

_SHOWN = 5
_SORTS = frozenset({"TABLE", "INDEX", "DOMAIN", "TYPE", "VIEW", "MATERIALIZED VIEW"})
_ANYTHING = "UTF8"
"""A database in this encoding takes text in any other that has a name for it."""
_NO_ENCODING = "SQL_ASCII"
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")
_ENCODING = re.compile(r"SET client_encoding = '([^']*)'")
_COLLATION = re.compile(rf"CREATE COLLATION {NAME}\.{NAME} (?P<options>\(.*\));\s*", re.DOTALL)
_OF_THE_SERVER = re.compile(rf"COLLATE pg_catalog\.(?P<name>{NAME})")
# Whether the role may make it: superusers do, others only what its author calls trusted.
_EXTENSIONS = """
    SELECT w.name, a.name IS NOT NULL,
           coalesce((SELECT bool_or(NOT v.superuser OR v.trusted) FROM pg_catalog.pg_available_extension_versions v
                     WHERE v.name = w.name), false)
           OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
    FROM unnest(%(wanted)s::text[]) AS w (name)
    LEFT JOIN pg_catalog.pg_available_extensions a ON a.name = w.name
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = w.name)
    ORDER BY 1
"""
_MISSING_COLLATIONS = """
    SELECT w.name FROM unnest(%s::text[]) AS w (name)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_collation c
                      WHERE c.collname = w.name AND c.collnamespace = 'pg_catalog'::regnamespace)
    ORDER BY 1
"""


async def require_all(contents: Contents, session: Session, *, role: str) -> None:
    """Raises ``wrong_version`` or ``lacking`` when the dump can't be restored by ``role`` in the database of the
    session, in which nothing changes."""
    _require_version(contents, session)
    await _require_extensions(contents, session, role=role)
    await _require_encoding(contents, session)
    await _require_collations(contents, session, role=role)


def _require_version(contents: Contents, session: Session) -> None:
    said = _VERSION.match(contents.server_version)
    ours = session.server_version // 10000
    if said is None or int(said[1]) <= ours:
        return
    raise permanent_error(
        "wrong_version",
        f"the copy is of a database of PostgreSQL {said[1]}, and the server here is of version {ours}, "
        "which does not know all that may be in it",
        field="restore",
        remedy=f"restore it at a site with PostgreSQL {said[1]} or newer",
    )


async def _require_extensions(contents: Contents, session: Session, *, role: str) -> None:
    wanted = [entry.name for entry in contents if entry.kind == "EXTENSION"]
    if not wanted:
        return
    found = await session.rows(_EXTENSIONS, {"wanted": wanted, "role": role})
    missing = [str(name) for name, available, _ in found if not available]
    if missing:
        raise permanent_error(
            "lacking",
            f"the server lacks {_named('extension', missing)} of the copy",
            field="restore",
            remedy=f"install {_them(missing)} on the machine of the PostgreSQL server (without a restart), or restore "
            "at a site that has it",
        )
    forbidden = [str(name) for name, _, allowed in found if not allowed]
    if forbidden:
        raise permanent_error(
            "lacking",
            f"only a superuser may make {_named('extension', forbidden)} of the copy on this server",
            field="restore",
            remedy=f"say `trusted = true` in the control file of {_them(forbidden)} on the server, or restore at a "
            "site where that is so",
        )


async def _require_encoding(contents: Contents, session: Session) -> None:
    its = next(
        (found[1] for entry in contents if entry.kind == "ENCODING" and (found := _ENCODING.search(entry.statement))),
        "",
    )
    ours = str(await session.value("SHOW server_encoding"))
    if ours in (its, _ANYTHING, _NO_ENCODING) or its in ("", _NO_ENCODING):
        return
    raise permanent_error(
        "lacking",
        f"the copy is in the encoding {its}, and databases are made in {ours} on this server, which has not all of its "
        "characters",
        field="restore",
        remedy="restore on a server that was initialised with --encoding=UTF8",
    )


async def _require_collations(contents: Contents, session: Session, *, role: str) -> None:
    sorts = [entry.statement for entry in contents if entry.kind in _SORTS]
    used = {_plain(found["name"]) for statement in sorts for found in _OF_THE_SERVER.finditer(statement)}
    if used:
        missing = [str(name) for (name,) in await session.rows(_MISSING_COLLATIONS, (sorted(used),))]
        if missing:
            raise _no_collation(_named("collation", missing), "it was made without ICU, or of other locales")
    for entry, options in _collations(contents):
        try:
            async with session.transaction():
                await session.run(f"SET LOCAL ROLE {quoted(role)}")
                await session.run(f"CREATE COLLATION pg_temp.calque_tried {options.replace('%', '%%')}")
                await session.run("DROP COLLATION pg_temp.calque_tried")
        except Lost:
            raise
        except ServerError as error:
            raise _no_collation(f"the collation {entry.schema}.{entry.name}", str(error).partition("\n")[0]) from None


def _collations(contents: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    for entry in contents:
        if entry.kind == "COLLATION" and (found := _COLLATION.fullmatch(entry.statement)):
            yield entry, found["options"]


def _no_collation(what: str, why: str) -> Exception:
    return permanent_error(
        "lacking",
        f"the server can't have {what} of the copy: {why}",
        field="restore",
        remedy="install the locale on the machine of the PostgreSQL server, or restore at a site that has it",
    )


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _named(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the {what}{'s' if len(names) > 1 else ''} {', '.join(map(quoted, names[:_SHOWN]))}{more}"
