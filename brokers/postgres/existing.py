"""Databases that were there before: seen, copied and handed through. Nothing here writes, in SQL or otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brokers.postgres.logins import Login, existing_login
from brokers.postgres.server import Server, ServerError, Session, explain
from schemas.brokers import Bound, Existing
from schemas.problems import CalqueError, Problem, permanent
from schemas.secrets import Secret

_SHOWN = 8
_UNREADABLE = """
    SELECT kind, name, lacks FROM (
        SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind,
               format('%I.%I', n.nspname, c.relname) AS name,
               CASE
                   WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN 'USAGE of its schema'
                   WHEN c.relkind = 'S' AND NOT has_sequence_privilege(c.oid, 'SELECT') THEN 'SELECT'
                   WHEN c.relkind <> 'S' AND NOT has_table_privilege(c.oid, 'SELECT') THEN 'SELECT'
                   WHEN c.relkind <> 'S' AND row_security_active(c.oid) THEN 'BYPASSRLS, for its row security'
               END AS lacks
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
          AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
    ) AS seen WHERE lacks IS NOT NULL ORDER BY 1 DESC, 2
"""
_REFUSALS = ("does not exist", "no pg_hba.conf entry", "is not permitted to log in", "is not currently accepting")


class ExistingDatabase:
    """One database of the user's."""

    def __init__(self, existing: Existing) -> None:
        self.login: Login = existing_login(existing)
        self.server = Server(lambda: self.login)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session in it. Raises :class:`CalqueError`."""
        with_errors = explained()
        async with with_errors, self.server.session(database=self.login.database) as session:
            yield session

    def resource(self, *, version: str) -> dict[str, str]:
        """Where and what it is."""
        login = self.login
        return {
            "host": login.host,
            "port": str(login.port),
            "database": login.database,
            "user": login.user,
            "version": version,
        }

    def bound(self) -> Bound:
        """The user's own credentials, for the app."""
        login = self.login
        secrets: dict[str, Secret] = {"uri": login.uri}
        if login.password is not None:
            secrets["password"] = login.password
        attributes = {"host": login.host, "port": str(login.port), "database": login.database, "user": login.user}
        return Bound(attributes=attributes, secrets=secrets)


async def check_readable(session: Session, *, user: str) -> None:
    """Raises ``not_permitted`` that names what ``user`` lacks for a whole copy, before a copy begins."""
    found = await session.rows(_UNREADABLE)
    if not found:
        return
    shown = ", ".join(f"{kind} {name} ({lacks})" for kind, name, lacks in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise CalqueError(
        permanent(
            "not_permitted",
            f"role {user!r} can't copy all of the database, it lacks: {shown}{more}",
            field="attach",
            remedy="an administrator can let it read everything: GRANT pg_read_all_data TO the role",
        )
    )


@asynccontextmanager
async def explained() -> AsyncIterator[None]:
    """Errors of a server that is the user's: what to do about them is another thing than with the broker's own."""
    try:
        yield
    except ServerError as error:
        problem = _problem(error)
        if problem is None:
            raise
        raise CalqueError(problem) from error


def _problem(error: BaseException) -> Problem | None:
    found = explain(error)
    if found is None:
        return None
    if found.code == "unauthorised":
        return permanent(
            "unauthorised",
            found.message.replace("the broker", "these credentials"),
            field="attach",
            remedy="check the user in the URL, and the secret: calque secret set",
        )
    if found.temporary and any(words in found.message for words in _REFUSALS):
        return permanent("postgres", found.message, field="attach", remedy="correct the URL, or let it in")
    return found
