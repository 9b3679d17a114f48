"""Masking: what is said of the columns of a data service, and what a copy was masked by.

What the words of a rule mean is in :mod:`schemas.masking_rules`. The key of an image is made by the agent for its save
alone; it travels in requests to brokers and never stands in a template, an event or a manifest.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from schemas.base import Fact
from schemas.secrets import Secret

Unclassified = Literal["keep", "refuse"]

_canonical = msgspec.json.Encoder(order="deterministic")


class MaskingRule(Fact, frozen=True, kw_only=True):
    """One line of the rules: which ``column`` (``[schema.]table.column[->path]``, ``*`` and ``?`` stand for any) goes
    through which ``transformer``."""

    column: str
    transformer: str


class RowsRule(Fact, frozen=True, kw_only=True):
    """Which ``table`` (``[schema.]table``, ``*`` and ``?`` stand for any) keeps which ``share`` of its rows."""

    table: str
    share: str


class Masking(Fact, frozen=True, kw_only=True):
    """The rules of one data service: of those that fit a column the first one counts.

    Of ``rows`` the first that fits a table counts; a row that refers to one that is left out is left out too.
    ``unclassified`` is what becomes of a column that no rule fits: ``refuse`` refuses the copy. ``keep`` says of the
    whole data service that it is harmless, whatever it holds.
    """

    columns: tuple[MaskingRule, ...] = ()
    unclassified: Unclassified = "keep"
    keep: bool = False
    rows: tuple[RowsRule, ...] = ()


class MaskingOrder(Fact, frozen=True, kw_only=True):
    """What a broker needs to mask a copy. ``key`` is that of the image, a text: the same for all of its data
    services, so that the same value becomes the same in each."""

    rules: Masking
    key: Secret


class Masked(Fact, frozen=True, kw_only=True):
    """By what a copy was masked: the digest of its ``rules``, and how many columns they changed. ``keep``: the data
    service was said to be harmless as a whole, and was copied as it is. ``subset``: the rules say how much of its
    tables is kept; ``rows_left_out`` were not copied."""

    rules: str
    columns: int = 0
    keep: bool = False
    subset: bool = False
    rows_left_out: int = 0


def rules_digest(rules: Masking) -> str:
    """The identity of the rules of one data service: SHA-256 (hex) of their canonical JSON."""
    return hashlib.sha256(_canonical.encode(rules)).hexdigest()
