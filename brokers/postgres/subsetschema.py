"""What subsetting has to know of a database: tables with their partitions, keys that tell rows apart, foreign keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from brokers.masking.schema import Name
from brokers.masking.subset import Reference, Whole
from brokers.postgres.server import Session

# Tables of an extension keep what a dump holds of them.
_TABLES = """
    SELECT c.oid::bigint, n.nspname, c.relname, coalesce(pg_partition_root(c.oid), c.oid)::bigint, c.relkind = 'p',
           greatest(c.reltuples, 0)::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
    ORDER BY n.nspname, c.relname
"""
# A generated column is no part of a dump's rows: it can't tell them apart there.
_KEYS = """
    SELECT x.indrelid::bigint,
           ARRAY(SELECT a.attname::text
                 FROM unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) WITH ORDINALITY u(number, place)
                 JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.number ORDER BY u.place)
    FROM pg_index x
    WHERE x.indisunique AND x.indisvalid AND x.indexprs IS NULL AND x.indpred IS NULL AND NOT EXISTS (
        SELECT FROM unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) u(number)
        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.number
        WHERE NOT a.attnotnull OR a.attgenerated <> '')
    ORDER BY x.indisprimary DESC, x.indnkeyatts, x.indexrelid
"""
# The operators and the collation are those that the server itself uses for the key.
_REFERENCES = """
    SELECT k.conname, k.conrelid::bigint, k.confrelid::bigint, coalesce((to_jsonb(k)->>'conperiod')::boolean, false),
           (SELECT string_agg(
                format('p.%I OPERATOR(%I.%s) ', q.attname, m.nspname, o.oprname)
                || CASE WHEN a.attcollation <> q.attcollation AND q.attcollation <> 0 AND a.attcollation <> 0
                        THEN format('(c.%I COLLATE %I.%I)', a.attname, w.nspname, l.collname)
                        ELSE format('c.%I', a.attname) END, ' AND ' ORDER BY u.place)
            FROM unnest(k.conkey, k.confkey, k.conpfeqop) WITH ORDINALITY u(mine, theirs, operator, place)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.mine
            JOIN pg_attribute q ON q.attrelid = k.confrelid AND q.attnum = u.theirs
            JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace m ON m.oid = o.oprnamespace
            LEFT JOIN pg_collation l ON l.oid = q.attcollation LEFT JOIN pg_namespace w ON w.oid = l.collnamespace)
    FROM pg_constraint k WHERE k.contype = 'f' AND k.conparentid = 0
    ORDER BY 2, 1
"""


class Catalog(NamedTuple):
    """The tables, the foreign keys between them, which of the tables are ``partitioned``, and about how many rows each
    of ``wholes`` has, as the server remembers it."""

    wholes: tuple[Whole, ...]
    references: tuple[Reference, ...]
    partitioned: frozenset[Name]
    about: Mapping[Name, int]

    def source(self, name: Name) -> str:
        """A table in a FROM: with its partitions, without what inherits from it."""
        return ("" if name in self.partitioned else "ONLY ") + f"{quoted(name.schema)}.{quoted(name.table)}"


def quoted(name: str) -> str:
    """A name of the catalog as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


async def read_catalog(session: Session) -> Catalog:
    """What the session sees of the database."""
    names: dict[int, Name] = {}
    parts: dict[int, list[Name]] = defaultdict(list)
    partitioned: set[Name] = set()
    about: dict[int, int] = defaultdict(int)
    for oid, schema, table, root, is_partitioned, rows in await session.rows(_TABLES):
        names[oid] = Name(schema, table)
        about[root] += 0 if is_partitioned else rows
        if is_partitioned:
            partitioned.add(names[oid])
        else:
            parts[root].append(names[oid])
        parts.setdefault(root, [])
    keys: dict[int, tuple[str, ...]] = {}
    for oid, columns in await session.rows(_KEYS):
        keys.setdefault(oid, tuple(columns))
    wholes = [Whole(names[oid], tuple(found), keys.get(oid, ())) for oid, found in parts.items() if oid in names]
    references = [
        Reference(name, names[child], names[other], condition, period)
        for name, child, other, period, condition in await session.rows(_REFERENCES)
        if child in names and other in names
    ]
    counts = {names[oid]: rows for oid, rows in about.items() if oid in names}
    return Catalog(tuple(wholes), tuple(references), frozenset(partitioned), counts)
