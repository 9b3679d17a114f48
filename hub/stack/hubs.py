"""How many hub processes a stack has, and how many NATS servers keep the hub's streams: said once, then remembered.

The number of hubs may change at each start. The number of servers stays what it was when the home was made: a server
that is put into a cluster throws away what it had stored alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hub.stack.errors import StackError
from hub.stack.files import read_json, write_json
from hub.stack.layout import HomeLayout

MOST_HUBS = 8
SERVERS = (1, 3, 5)


@dataclass(frozen=True, kw_only=True)
class Hubs:
    """``hubs`` processes on ``servers`` servers."""

    hubs: int = 1
    servers: int = 1


def known_hubs(layout: HomeLayout) -> Hubs | None:
    """What the home has; ``None`` for one whose hub never ran. Raises :class:`StackError` for a damaged record."""
    try:
        said = read_json(layout.hubs)
        if said is not None:
            return Hubs(hubs=int(said["hubs"]), servers=int(said["servers"]))
    except (ValueError, TypeError, KeyError) as cause:
        raise StackError(f"{layout.hubs} can't be read ({cause}): restore it from a copy of the home") from None
    return Hubs() if (layout.hub / "nats").is_dir() else None


def wanted_hubs(layout: HomeLayout, *, hubs: int | None, servers: int | None) -> Hubs:
    """What the stack is to have: as said, else as before. Raises :class:`StackError` for what can't be."""
    if hubs is not None and not 1 <= hubs <= MOST_HUBS:
        raise StackError(f"hubs: {hubs} is not possible; from 1 to {MOST_HUBS}")
    if servers is not None and servers not in SERVERS:
        raise StackError(f"cluster: {servers} servers is not possible; {', '.join(map(str, SERVERS))}")
    known = known_hubs(layout)
    if known is not None and servers not in (None, known.servers):
        raise StackError(
            f"cluster: the home {layout.home} was made with {known.servers} of the hub's servers, and that stays so: "
            "name another home with --home"
        )
    before = known or Hubs()
    return Hubs(hubs=hubs or before.hubs, servers=servers or before.servers)


def keep_hubs(layout: HomeLayout, hubs: Hubs) -> None:
    """Remember it for the next start."""
    if hubs != Hubs() or layout.hubs.exists():
        write_json(layout.hubs, asdict(hubs))
