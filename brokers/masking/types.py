"""What a column's type means for masking. Names are those of PostgreSQL's ``format_type``."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

Family = Literal[
    "text", "integer", "number", "uuid", "boolean", "date", "timestamp", "time", "interval", "json", "bytes", "inet",
    "cidr", "mac", "other",
]  # fmt: skip

_FAMILIES: Final[dict[str, Family]] = {
    **dict.fromkeys(("text", "character varying", "varchar", "character", "bpchar", "citext", "name"), "text"),
    **dict.fromkeys(("smallint", "integer", "bigint"), "integer"),
    **dict.fromkeys(("numeric", "real", "double precision"), "number"),
    "uuid": "uuid",
    "boolean": "boolean",
    "date": "date",
    "interval": "interval",
    **dict.fromkeys(("json", "jsonb"), "json"),
    "bytea": "bytes",
    "inet": "inet",
    "cidr": "cidr",
    **dict.fromkeys(("macaddr", "macaddr8"), "mac"),
}
_SIZED = re.compile(
    r"(?P<name>[a-z][a-z0-9 ]*?)(?:\((?P<sizes>[\d,]+)\))?(?P<zone> with(?:out)? time zone)?(?P<array>(?:\[\])*)"
)
NAME_BYTES: Final = 63


class ColumnType(NamedTuple):
    """A type. ``limit`` is the most characters of a text; ``fixed``: numbers are written with a fixed scale."""

    name: str
    family: Family
    limit: int | None = None
    fixed: bool = False
    array: bool = False

    @property
    def element(self) -> ColumnType:
        """The type of an array's elements."""
        return self._replace(array=False)


def read_type(name: str) -> ColumnType:
    """What ``name`` means: ``character varying(20)[]``, ``timestamp(3) with time zone``, ``public.mood``."""
    base = name.rpartition(".")[2] if name.endswith("citext") else name
    found = _SIZED.fullmatch(base)
    if found is None:
        return ColumnType(name, "other", array=name.endswith("[]"))
    plain, sizes, array = found["name"], found["sizes"], bool(found["array"])
    if found["zone"]:
        return ColumnType(plain, "timestamp" if plain == "timestamp" else "time", array=array)
    family = _FAMILIES.get(plain, "other")
    limit = int(sizes) if sizes and family == "text" else NAME_BYTES if plain == "name" else None
    if plain == "character" and limit is None:
        limit = 1
    return ColumnType(plain, family, limit, fixed=plain == "numeric" and bool(sizes), array=array)
