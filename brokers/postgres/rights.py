"""What the broker's own role may do on its server, and what follows from what it may not."""

from __future__ import annotations

from typing import NamedTuple

from brokers.postgres.server import Session
from schemas.problems import Problem, permanent

_RIGHTS = "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"


class Rights(NamedTuple):
    """Of the role that the broker logs in as."""

    role: str
    superuser: bool
    creates_databases: bool
    creates_roles: bool

    @property
    def lacking(self) -> tuple[str, ...]:
        """What it needs to provision and has not."""
        if self.superuser:
            return ()
        wanted = {"CREATEDB": self.creates_databases, "CREATEROLE": self.creates_roles}
        return tuple(name for name, there in wanted.items() if not there)

    @property
    def limits(self) -> tuple[str, ...]:
        """In words, for people who look at the broker."""
        if self.lacking:
            return (f"it can attach databases but make none: role {self.role} lacks {' and '.join(self.lacking)}",)
        if not self.superuser:
            return (f"role {self.role} is no superuser: copies with extensions that are not trusted can't be restored",)
        return ()

    def problem(self) -> Problem | None:
        """Why nothing can be provisioned, if so."""
        if not self.lacking:
            return None
        return permanent(
            "not_permitted",
            f"role {self.role!r} can't make databases and roles, it lacks {' and '.join(self.lacking)}",
            field="admin",
            remedy=f"a superuser can give it that: ALTER ROLE {self.role} {' '.join(self.lacking)}",
        )


async def rights_of(session: Session) -> Rights:
    """Asked of the server each time: they may be changed while the broker runs."""
    ((role, superuser, databases, roles),) = await session.rows(_RIGHTS)
    return Rights(str(role), bool(superuser), bool(databases), bool(roles))


async def keep_hold_of(session: Session, role: str) -> None:
    """Have the broker's role act as ``role``, which it made: a superuser may do so anyway, others have to be
    members, to give it a database, to end its sessions and to drop what it owns."""
    if not (await rights_of(session)).superuser:
        await session.run(f"GRANT {role} TO CURRENT_USER")
