"""The schema of a database as masking has to know it, read from the catalog."""

from __future__ import annotations

from collections import defaultdict

from brokers.masking.schema import LARGE_OBJECTS, Check, Column, ForeignKey, Name, Schema, Table, Unique
from brokers.postgres.server import Session

# A table of an extension is no part of a copy, unless the extension says that users fill it.
_OURS = """
    c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
    AND NOT EXISTS (
        SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass
          AND d.deptype = 'e' AND NOT c.oid = ANY (coalesce(e.extconfig, '{}')))
"""
_DOMAINS = """
    RECURSIVE steps(domain, type, modifier, required) AS (
        SELECT oid, typbasetype, typtypmod, typnotnull FROM pg_type WHERE typtype = 'd'
        UNION ALL
        SELECT s.domain, t.typbasetype, t.typtypmod, s.required OR t.typnotnull
        FROM steps s JOIN pg_type t ON t.oid = s.type AND t.typtype = 'd'
    ), base AS (
        SELECT s.* FROM steps s JOIN pg_type t ON t.oid = s.type WHERE t.typtype <> 'd'
    )
"""
_COLUMNS = f"""
    WITH {_DOMAINS}
    SELECT c.oid::bigint, n.nspname, c.relname, c.relkind = 'r', a.attname,
           format_type(coalesce(b.type, a.atttypid), CASE WHEN b.type IS NULL THEN a.atttypmod ELSE b.modifier END),
           a.attnotnull OR coalesce(b.required, false), a.attgenerated <> '',
           coalesce(pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname), '')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN base b ON b.domain = a.atttypid
    WHERE c.relkind IN ('r', 'p') AND {_OURS}
    ORDER BY n.nspname, c.relname, a.attnum
"""  # noqa: S608 - put together of parts that stand here
_ANCESTORS = """
    WITH RECURSIVE above(child, parent) AS (
        SELECT inhrelid, inhparent FROM pg_inherits
        UNION
        SELECT a.child, i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.parent
    )
    SELECT a.child::bigint, n.nspname, c.relname,
           ARRAY(SELECT k.attname::text FROM pg_partitioned_table p
                 JOIN pg_attribute k ON k.attrelid = p.partrelid AND k.attnum > 0 AND (
                     k.attnum = ANY (p.partattrs)
                     OR position(quote_ident(k.attname) IN pg_get_expr(p.partexprs, p.partrelid)) > 0)
                 WHERE p.partrelid = c.oid)
    FROM above a JOIN pg_class c ON c.oid = a.parent JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
    ORDER BY 1
"""
_UNIQUES = f"""
    SELECT i.relname, n.nspname, c.relname,
           x.indexprs IS NOT NULL OR x.indpred IS NOT NULL OR x.indisexclusion,
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND (
               a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])
               OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
                          AND (x.indexprs IS NOT NULL OR x.indpred IS NOT NULL))))
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (x.indisunique OR x.indisexclusion) AND c.relkind IN ('r', 'p') AND {_OURS}
    ORDER BY 2, 3, 1
"""  # noqa: S608 - put together of parts that stand here
_FOREIGN_KEYS = f"""
    SELECT k.conname, n.nspname, c.relname, m.nspname, o.relname,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(number, place)
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.number ORDER BY u.place),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(number, place)
                 JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum = u.number ORDER BY u.place)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class o ON o.oid = k.confrelid JOIN pg_namespace m ON m.oid = o.relnamespace
    WHERE k.contype = 'f' AND {_OURS}
    ORDER BY 2, 3, 1
"""  # noqa: S608 - put together of parts that stand here
_CHECKS = f"""
    SELECT k.conname, n.nspname, c.relname,
           ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey)),
           pg_get_expr(k.conbin, k.conrelid), ''
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'c' AND k.conkey IS NOT NULL AND c.relkind IN ('r', 'p') AND {_OURS}
    UNION ALL
    SELECT t.typname, n.nspname, c.relname, ARRAY[a.attname::text], '', format_type(t.oid, NULL)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid AND t.typtype = 'd'
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND {_OURS}
    ORDER BY 2, 3, 1
"""  # noqa: S608 - put together of parts that stand here
_LARGE_OBJECTS = "SELECT EXISTS (SELECT FROM pg_largeobject_metadata)"


async def read_schema(session: Session) -> Schema:
    """The tables of the database that a copy holds, and the constraints that masked values have to keep."""
    above: dict[int, list[tuple[Name, list[str]]]] = defaultdict(list)
    for child, schema, table, key in await session.rows(_ANCESTORS):
        above[child].append((Name(schema, table), key))
    found: dict[int, tuple[Name, bool, list[Column]]] = {}
    for oid, schema, table, holds_rows, column, type_name, not_null, generated, sequence in await session.rows(
        _COLUMNS
    ):
        _, _, columns = found.setdefault(oid, (Name(schema, table), holds_rows, []))
        if column is not None:
            columns.append(Column(column, type_name, not_null, generated, sequence))
    tables = [
        Table(
            name,
            tuple(columns),
            tuple(parent for parent, _ in above[oid]),
            frozenset(column for _, key in above[oid] for column in key),
            holds_rows,
        )
        for oid, (name, holds_rows, columns) in found.items()
    ]
    if await session.value(_LARGE_OBJECTS):
        tables.append(Table(LARGE_OBJECTS, (Column("data", "bytea"),)))
    return Schema(
        tables=tuple(tables),
        uniques=tuple(
            Unique(name, Name(schema, table), tuple(columns), expression)
            for name, schema, table, expression, columns in await session.rows(_UNIQUES)
        ),
        foreign_keys=tuple(
            ForeignKey(name, Name(schema, table), tuple(columns), Name(other_schema, other), tuple(others))
            for name, schema, table, other_schema, other, columns, others in await session.rows(_FOREIGN_KEYS)
        ),
        checks=tuple(
            Check(name, Name(schema, table), tuple(columns), expression, domain)
            for name, schema, table, columns, expression, domain in await session.rows(_CHECKS)
        ),
    )
