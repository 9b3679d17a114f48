"""Giving all that a role has in one database to another role, so that nothing there depends on the first any more."""

from __future__ import annotations

from brokers.postgres.server import Session

# Who may use a row is part of a policy and does not follow the owner.
_POLICIES = """
    SELECT format('ALTER POLICY %%I ON %%s TO %%s', polname, polrelid::regclass,
                  (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC'
                                            WHEN %(old)s::text::regrole THEN quote_ident(%(new)s::text)
                                            ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                   FROM unnest(polroles) AS r))
    FROM pg_policy WHERE %(old)s::text::regrole = ANY(polroles)
"""
# What objects made later give to whom. Those without a schema stand in place of what PostgreSQL gives by itself, which
# is taken away first; those of a schema are given on top.
_DEFAULT_PRIVILEGES = """
    WITH kinds(letter, words) AS (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'), ('T', 'TYPES'),
                                         ('n', 'SCHEMAS'), ('L', 'LARGE OBJECTS')),
    set_ones AS (
        SELECT d.defaclacl AS acl, d.defaclobjtype AS letter, k.words, d.defaclnamespace = 0 AS everywhere,
               CASE WHEN d.defaclnamespace = 0 THEN ''
                    ELSE format(' IN SCHEMA %%s', d.defaclnamespace::regnamespace) END AS place
        FROM pg_default_acl d JOIN kinds k ON k.letter = d.defaclobjtype
        WHERE d.defaclrole = %(old)s::text::regrole
    ),
    given AS (
        SELECT s.*, a.privilege_type AS privilege, a.is_grantable AS further,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS to_old,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' WHEN %(old)s::text::regrole THEN quote_ident(%(new)s::text)
                              ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS to_new
        FROM set_ones s CROSS JOIN LATERAL aclexplode(s.acl) a
    ),
    native AS (
        SELECT s.*, a.privilege_type AS privilege,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(%(old)s::text) END AS to_old
        FROM set_ones s CROSS JOIN LATERAL aclexplode(acldefault(
            CASE s.letter WHEN 'S' THEN 's'::"char" ELSE s.letter END, %(old)s::text::regrole)) a
        WHERE s.everywhere
    )
    SELECT statement FROM (
        SELECT 1 AS turn, format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I REVOKE ALL ON %%s FROM PUBLIC, %%I',
                                 %(new)s::text, words, %(new)s::text) AS statement FROM set_ones WHERE everywhere
        UNION ALL
        SELECT 2, format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I%%s GRANT %%s ON %%s TO %%s%%s', %(new)s::text, place,
                         privilege, words, to_new, CASE WHEN further THEN ' WITH GRANT OPTION' ELSE '' END) FROM given
        UNION ALL
        SELECT 3, format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I%%s REVOKE ALL ON %%s FROM %%s', %(old)s::text, place,
                         words, to_old) FROM given
        UNION ALL
        SELECT 4, format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I%%s GRANT %%s ON %%s TO %%s', %(old)s::text, place,
                         privilege, words, to_old) FROM native
    ) AS steps ORDER BY turn
"""
_LEFT = """
    SELECT count(*) FROM pg_shdepend
    WHERE refclassid = 'pg_authid'::regclass AND refobjid = %s::text::regrole
      AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_SETTINGS = """
    SELECT split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
    FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS setting
    WHERE d.datname = %s AND s.setrole = 0
"""


class NotHandedOver(Exception):
    """Something in the database can't be given to another role."""


async def hand_over(session: Session, *, old: str, new: str, owned: str | None = None) -> None:
    """Within one transaction: what ``old`` owns in the session's database is ``new``'s, and so are its policies and
    default privileges. ``owned`` is a database elsewhere that ``old`` keeps.

    Raises :class:`NotHandedOver`, and then nothing has changed.
    """
    names = {"old": old, "new": new}
    async with session.transaction():
        policies = await session.rows(_POLICIES, names)
        privileges = await session.rows(_DEFAULT_PRIVILEGES, names)
        await session.run(f"REASSIGN OWNED BY {old} TO {new}")
        if owned is not None:  # whole databases are reassigned too, wherever they are
            await session.run(f"ALTER DATABASE {owned} OWNER TO {old}")
        for (statement,) in (*policies, *privileges):
            await session.run(str(statement))
        if left := await session.value(_LEFT, (old,)):
            raise NotHandedOver(f"{left} things in the database depend on their role in a way that can't be changed")


async def copy_settings(session: Session, *, source: str, target: str) -> None:
    """What ``ALTER DATABASE SET`` said of ``source``, which a clone does not have, is said of ``target``."""
    for name, value in await session.rows(_SETTINGS, (source,)):
        async with session.transaction():
            await session.value("SELECT set_config(%s::text, %s::text, true)", (name, value))
            quoted = await session.value("SELECT quote_ident(%s::text)", (name,))
            await session.run(f"ALTER DATABASE {target} SET {quoted} FROM CURRENT")
