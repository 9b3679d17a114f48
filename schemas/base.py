"""The two bases of everything that travels: open to readers of facts, strict to senders of requests."""

from __future__ import annotations

import msgspec


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value, an event or a reply. Readers ignore the fields they don't know."""


class Demand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A command, a query or a broker request. A field that the receiver doesn't know is an error."""
