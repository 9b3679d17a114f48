"""Databases and roles: made, found again and removed, each step such that it may be repeated or cut off anywhere.

A data service is a database and a role of the same name that owns all in it and can't log in. A binding is a login
role, member of the owner; in the database it acts as the owner from its first statement, so that what one binding
made belongs to the next one too. Comments carry our labels: on the owner role from the first moment, so that
whatever is left of a broken run is known as ours, on the database only when it is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from brokers.postgres.names import DATABASE_PATTERN, LOGIN_PATTERN, database_of, login_of
from brokers.postgres.rights import keep_hold_of, rights_of
from brokers.postgres.server import Server, Session
from schemas.brokers import ResourceDescription
from schemas.problems import CalqueError, not_found
from schemas.secrets import Secret

CONNECTION_LIMIT = 50
EMPTY = "template0"


class Mark(msgspec.Struct, frozen=True, kw_only=True, tag="calque", tag_field="by"):
    """The comment on what is ours."""

    service_id: str
    labels: dict[str, str] = {}
    binding_id: str | None = None
    plan: str = ""
    restored_bytes: int = 0
    method: str = ""

    def text(self) -> str:
        """As the comment says it."""
        return msgspec.json.encode(self).decode()


def read_mark(comment: str | None) -> Mark | None:
    """Our mark in a comment; ``None`` when it is none of ours."""
    if not comment:
        return None
    try:
        return msgspec.json.decode(comment, type=Mark)
    except msgspec.DecodeError:
        return None


_COMMENT_OF_DATABASE = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
_MARKED_DATABASES = """
    SELECT d.datname, shobj_description(d.oid, 'pg_database'), shobj_description(r.oid, 'pg_authid'),
           CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END::bigint
    FROM pg_database d LEFT JOIN pg_roles r ON r.rolname = d.datname
    WHERE d.datname ~ %s ORDER BY d.datname
"""
_MARKED_ROLES = """
    SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles
    WHERE rolname ~ %s OR rolname ~ %s ORDER BY rolname
"""
_LOGINS = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY rolname"


class Databases:
    """The databases and roles on one server that are ours."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def complete(self, service_id: str) -> Mark | None:
        """The mark of a database that is complete; ``None`` when there is none, or only half of one."""
        async with self._server.session() as session:
            return await self._complete(session, service_id)

    async def require(self, session: Session, service_id: str) -> Mark:
        """The mark of a database that is there and complete. Raises ``not_found``."""
        mark = await self._complete(session, service_id)
        if mark is None:
            raise CalqueError(not_found("service_id", f"no data service {service_id} is here", "provision it first"))
        return mark

    async def create(self, mark: Mark, *, template: str = EMPTY, settings: Sequence[str] = ()) -> None:
        """Make a database that nobody can reach yet; what a broken run left of it is dropped. ``template`` is what it
        is made of, and ``settings`` are statements of the session that makes it."""
        name = database_of(mark.service_id)
        async with self._server.session() as session:
            if problem := (await rights_of(session)).problem():
                raise CalqueError(problem)
            await session.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            async with session.transaction():
                if not await session.value("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)):
                    await session.run(f"CREATE ROLE {name} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
                    await keep_hold_of(session, name)
                await session.comment("ROLE", name, mark.text())
            for setting in settings:
                await session.run(setting)
            await session.run(
                f"CREATE DATABASE {name} OWNER {name} TEMPLATE {template} CONNECTION LIMIT {CONNECTION_LIMIT}"
            )
            await session.run(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")

    async def finish(self, mark: Mark) -> None:
        """Say that the database is complete."""
        async with self._server.session() as session:
            await session.comment("DATABASE", database_of(mark.service_id), mark.text())

    async def drop(self, service_id: str) -> None:
        """Remove the database, its owner and its bindings, ending their sessions. Unknown is done."""
        name = database_of(service_id)
        async with self._server.session() as session:
            logins = [str(login) for (login,) in await session.rows(_LOGINS, (f"{name}_",))]
            for login in logins:
                await session.run(f"ALTER ROLE {login} NOLOGIN")
            await session.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            for role in (*logins, name):
                await session.run(f"DROP ROLE IF EXISTS {role}")

    async def bind(self, *, service_id: str, binding_id: str, secret: Secret) -> str:
        """Make or renew the login role of a binding; its name."""
        owner, login = database_of(service_id), login_of(service_id, binding_id)
        async with self._server.session() as session:
            mark = await self.require(session, service_id)
            verifier = session.verifier(user=login, password=secret.value)
            async with session.transaction():
                if not await session.value("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,)):
                    await session.run(f"CREATE ROLE {login} NOSUPERUSER NOCREATEDB NOCREATEROLE")
                    await keep_hold_of(session, login)
                password = await session.value("SELECT quote_literal(%s::text)", (verifier,))
                await session.run(f"ALTER ROLE {login} LOGIN INHERIT PASSWORD {password}")
                await session.run(f"GRANT {owner} TO {login}")
                await session.run(f"ALTER ROLE {login} IN DATABASE {owner} SET role = '{owner}'")
                bound = Mark(service_id=service_id, binding_id=binding_id, labels=mark.labels)
                await session.comment("ROLE", login, bound.text())
        return login

    async def unbind(self, *, service_id: str, binding_id: str) -> None:
        """Remove the login role of a binding and end its sessions; what it owns goes to the owner."""
        owner, login = database_of(service_id), login_of(service_id, binding_id)
        async with self._server.session() as session:
            if not await session.value("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,)):
                return
            await session.run(f"ALTER ROLE {login} NOLOGIN")
            await session.run(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", (login,)
            )
            there = await session.value("SELECT 1 FROM pg_database WHERE datname = %s", (owner,))
        async with self._server.session(database=owner if there else None) as session, session.transaction():
            if there:
                await session.run(f"REASSIGN OWNED BY {login} TO {owner}")
            await session.run(f"DROP OWNED BY {login}")
            await session.run(f"DROP ROLE {login}")

    async def describe(self, service_id: str | None) -> tuple[ResourceDescription, ...]:
        """All databases and roles that are ours, or those of one data service."""
        async with self._server.session() as session:
            databases = await session.rows_of_what_goes(_MARKED_DATABASES, (DATABASE_PATTERN,))
            roles = await session.rows(_MARKED_ROLES, (DATABASE_PATTERN, LOGIN_PATTERN))
        found = [
            _description("database", name, read_mark(comment) or read_mark(owner), size=size)
            for name, comment, owner, size in databases
        ]
        found += [_description("role", name, read_mark(comment)) for name, comment in roles]
        if service_id is None:
            return tuple(found)
        own = database_of(service_id)
        return tuple(one for one in found if one.name == own or one.name.startswith(f"{own}_"))

    async def _complete(self, session: Session, service_id: str) -> Mark | None:
        return read_mark(await session.value(_COMMENT_OF_DATABASE, (database_of(service_id),)))


def _description(
    kind: Literal["database", "role"], name: str, mark: Mark | None, *, size: int | None = None
) -> ResourceDescription:
    if mark is None:
        return ResourceDescription(id=name, kind=kind, name=name, size=size)
    labels = {**mark.labels, "service_id": mark.service_id}
    if mark.binding_id:
        labels["binding_id"] = mark.binding_id
    return ResourceDescription(id=mark.binding_id or mark.service_id, kind=kind, name=name, labels=labels, size=size)
