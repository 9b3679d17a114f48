"""What of a dump is restored otherwise than ``pg_restore`` would: roles at the target have other names.

Grants and policies that name the owner of a thing, everybody or a role that every server has are carried over to the
new service's role; those for others are left out, as are things that only a superuser may make or that would reach
out to other servers. What is left out was told when the copy was prepared (:mod:`brokers.postgres.leftout`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from brokers.postgres.contents import Entry
from brokers.postgres.names import quoted
from brokers.postgres.server import ServerError, Session

logger = logging.getLogger(__name__)

_NEVER = frozenset({"SUBSCRIPTION", "USER MAPPING", "EVENT TRIGGER", "SUBSCRIPTION TABLE"})
_EVERYTHING = re.compile(r" FOR (ALL TABLES|TABLES IN SCHEMA)\b")
NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
"""A name as it stands in a statement."""
_GIVEN = re.compile(r" (?:TO|FROM) pg_\w+(?: WITH GRANT OPTION)?$")
_GRANT = re.compile(rf"(?P<what>.*) (?P<to>TO|FROM) (?P<role>{NAME})(?P<rest> WITH GRANT OPTION)?", re.DOTALL)
_FOR_ROLE = re.compile(rf"ALTER DEFAULT PRIVILEGES FOR ROLE (?P<role>{NAME})(?P<rest> .*)", re.DOTALL)
_POLICY = re.compile(
    rf"(?P<head>CREATE POLICY {NAME} ON {NAME}\.{NAME}(?: AS RESTRICTIVE)?(?: FOR [A-Z]+)?)"
    rf" TO (?P<roles>{NAME}(?:, {NAME})*)(?P<rest>.*)",
    re.DOTALL,
)


class Carrying(NamedTuple):
    """``skipped`` are entries that ``pg_restore`` shall not make; ``statements`` are run by the service's role, after
    all else. ``optional`` ones name roles that only some versions of the server have."""

    skipped: frozenset[int]
    statements: tuple[str, ...]
    optional: tuple[str, ...]

    def kept(self, contents: Sequence[Entry]) -> list[Entry]:
        """What ``pg_restore`` makes."""
        return [entry for entry in contents if entry.number not in self.skipped]


def carrying(contents: Sequence[Entry], *, role: str) -> Carrying:
    """What becomes of the entries of a dump when everything shall belong to ``role``."""
    skipped: set[int] = set()
    ours: set[int] = set()
    statements: list[str] = []
    for entry in contents:
        if entry.kind in ("ACL", "DEFAULT ACL"):
            if not entry.name.startswith("DATABASE "):
                statements += _grants(entry, role)
        elif entry.kind == "POLICY" and (found := _POLICY.match(entry.statement)):
            skipped.add(entry.number)
            roles = [_role(name, entry, role) for name in re.findall(NAME, found["roles"])]
            if here := ", ".join(name for name in roles if name):
                statements.append(f"{found['head']} TO {here}{found['rest']}")
                ours.add(entry.number)
        elif entry.kind == "COMMENT" and not ours.isdisjoint(entry.needs):
            statements.append(entry.statement)
        elif entry.kind in _NEVER or (entry.kind == "PUBLICATION" and _EVERYTHING.search(entry.statement)):
            skipped.add(entry.number)
    grown = True
    while grown:
        more = {
            entry.number for entry in contents if entry.number not in skipped and not skipped.isdisjoint(entry.needs)
        }
        skipped |= more
        grown = bool(more)
    optional = [each for each in statements if _GIVEN.search(each)]
    return Carrying(frozenset(skipped), tuple(each for each in statements if each not in optional), tuple(optional))


async def apply(carried: Carrying, session: Session, *, role: str) -> None:
    """Run the statements, in one transaction. Raises what the server refuses."""
    async with session.transaction():
        await session.run(f"SET LOCAL ROLE {quoted(role)}")
        await session.run("SET LOCAL search_path = ''")
        for statement in carried.statements:
            await session.run(statement)
        for statement in carried.optional:
            try:
                async with session.transaction():
                    await session.run(statement)
            except ServerError as error:
                logger.warning("left out: %s: %s", statement, error)


def _grants(entry: Entry, role: str) -> Iterator[str]:
    other = False
    for statement in _statements(entry.statement):
        if statement.startswith(("SET SESSION AUTHORIZATION", "RESET SESSION AUTHORIZATION")):
            other = statement.startswith("SET")  # granted by somebody who had it granted
            continue
        found = None if other else _GRANT.fullmatch(statement)
        if found is None or (to := _role(found["role"], entry, role)) is None:
            continue
        what = found["what"]
        if default := _FOR_ROLE.fullmatch(what):
            if (by := _role(default["role"], entry, role)) is None:
                continue
            what = f"ALTER DEFAULT PRIVILEGES FOR ROLE {by}{default['rest']}"
        yield f"{what} {found['to']} {to}{found['rest'] or ''}"


def _role(written: str, entry: Entry, role: str) -> str | None:
    """Who that is at the target, if anybody."""
    name = written[1:-1].replace('""', '"') if written.startswith('"') else written
    if name == entry.owner:
        return quoted(role)
    return written if written == "PUBLIC" or name.startswith("pg_") else None


def _statements(text: str) -> Iterator[str]:
    """Statements that end with a semicolon outside of quotes."""
    at, quote = 0, False
    for index, character in enumerate(text):
        if character == '"':
            quote = not quote
        elif character == ";" and not quote:
            if statement := text[at:index].strip():
                yield statement
            at = index + 1
