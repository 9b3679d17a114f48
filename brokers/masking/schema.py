"""What masking has to know of a database's schema. Names are as the catalog holds them, not quoted."""

from __future__ import annotations

from typing import NamedTuple


class Name(NamedTuple):
    """A table by its schema and name."""

    schema: str
    table: str

    def __str__(self) -> str:
        return self.table if self.schema == "public" else f"{self.schema}.{self.table}"


class Column(NamedTuple):
    """A column. ``type`` is what values are written as: of a domain, the type below it. ``sequence`` is what new values
    come from, if they come from one; ``generated`` ones are no part of a copy."""

    name: str
    type: str
    not_null: bool = False
    generated: bool = False
    sequence: str = ""


class Table(NamedTuple):
    """A table; ``holds_rows`` unless its rows lie in its partitions alone. ``ancestors`` are those that it is a
    partition of, or inherits from: rules about them are about it. ``partition_key`` are the columns that decide in
    which partition a row lies."""

    name: Name
    columns: tuple[Column, ...]
    ancestors: tuple[Name, ...] = ()
    partition_key: frozenset[str] = frozenset()
    holds_rows: bool = True


class Unique(NamedTuple):
    """A unique or exclusion index. ``expression``: it is about more than the plain values of its columns."""

    name: str
    table: Name
    columns: tuple[str, ...]
    expression: bool = False


class ForeignKey(NamedTuple):
    """A foreign key: ``columns`` of ``table`` refer to ``others`` of ``other``."""

    name: str
    table: Name
    columns: tuple[str, ...]
    other: Name
    others: tuple[str, ...]


class Check(NamedTuple):
    """A check constraint of a table: its ``expression`` over the columns; or those of the ``domain`` of one column."""

    name: str
    table: Name
    columns: tuple[str, ...]
    expression: str = ""
    domain: str = ""


LARGE_OBJECTS = Name("pg_catalog", "pg_largeobject")
"""Stands for all large objects: its one column is ``data``."""


class Schema(NamedTuple):
    """All of it."""

    tables: tuple[Table, ...] = ()
    uniques: tuple[Unique, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[Check, ...] = ()
