"""What a logical copy can't carry, said before it starts."""

from __future__ import annotations

from brokers.postgres.server import Session

_SHOWN = 5
# Rights that roles other than the owner of each thing hold, and policies for them; roles that every server has are
# carried, and bindings have the owner's rights anyway.
_ROLES = """
    SELECT r.rolname, count(*) FILTER (WHERE d.deptype = 'a')::int, count(*) FILTER (WHERE d.deptype = 'r')::int
    FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
    WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype IN ('a', 'r')
      AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend o WHERE o.dbid = d.dbid AND o.classid = d.classid
                      AND o.objid = d.objid AND o.deptype = 'o' AND o.refobjid = d.refobjid)
      AND r.oid <> (SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND NOT pg_catalog.starts_with(r.rolname, 'pg_')
      AND NOT pg_catalog.starts_with(r.rolname, pg_catalog.current_database() || '_')
    GROUP BY 1 ORDER BY 1
"""
_THINGS = """
    SELECT 'tablespaces: what lies in them goes where the target puts everything', spcname
    FROM pg_catalog.pg_tablespace s
    WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.reltablespace = s.oid AND c.oid >= 16384)
    UNION ALL
    SELECT 'user mappings of foreign servers', srvname FROM pg_catalog.pg_user_mappings
    UNION ALL
    SELECT 'subscriptions', subname FROM pg_catalog.pg_subscription
    WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    UNION ALL
    SELECT 'event triggers', evtname FROM pg_catalog.pg_event_trigger t
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e'
                      AND d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass)
    UNION ALL
    SELECT 'publications of all tables or of schemas', pubname FROM pg_catalog.pg_publication p
    WHERE p.puballtables {schemas}
    ORDER BY 1, 2
"""
_OF_SCHEMAS = "OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n WHERE n.pnpubid = p.oid)"


async def left_out(session: Session) -> tuple[str, ...]:
    """In words, for people: one sentence for each kind of thing, with names."""
    found: list[str] = []
    for role, grants, policies in await session.rows(_ROLES):
        what = [f"grants on {grants} things"] if grants else []
        what += [f"{policies} policies"] if policies else []
        found.append(f"{' and '.join(what)} for the role {role}, which is none of the service's")
    named: dict[str, list[str]] = {}
    since_15 = session.server_version >= 150000
    # subconninfo is hidden from others than superusers; the name is not
    for kind, name in await session.rows(_THINGS.format(schemas=_OF_SCHEMAS if since_15 else "")):
        named.setdefault(kind, []).append(str(name))
    for kind, names in named.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        found.append(f"{kind} ({', '.join(names[:_SHOWN])}{more})")
    return tuple(found)
