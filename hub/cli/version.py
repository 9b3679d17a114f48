"""``version``: of this program, of the hub it speaks to, and of the sites of that hub."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

import click

from hub.cli.options import document_options
from hub.cli.session import Session, asynchronous
from hub.cli.tables import show_table
from schemas.problems import CalqueError


def own_version() -> str:
    """The version of this distribution."""
    return metadata.version("calque")


def skew(mine: str, other: str) -> str | None:
    """What is to be said of a part with another version; ``None`` when it has the same, or says none."""
    if not other or other == mine:
        return None
    return "newer than this client" if _number(other) > _number(mine) else "older than this client"


def _number(version: str) -> tuple[tuple[int, str], ...]:
    pieces = version.replace("-", ".").replace("+", ".").split(".")
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces)


@click.command()
@document_options
@asynchronous
async def version(session: Session) -> None:
    """Show the versions of this program, the hub and its sites, and which of them differ."""
    mine = own_version()
    hub: str | None = None
    sites: Mapping[str, str] = {}
    try:
        async with session.client() as client:
            status = await client.status()
            hub, sites = status.version, {site.name: site.version for site in status.sites}
    except CalqueError as error:
        session.say(f"hub: {error.problem.sentence()}")
    others = {"hub": hub or "", **{f"site {name}": each for name, each in sites.items()}}
    differing = {name: said for name, each in others.items() if (said := skew(mine, each))}
    if session.shown({"client": mine, "hub": hub, "sites": sites, "skew": differing}):
        return
    rows = [("client", mine, "")] + [(name, each, differing.get(name, "")) for name, each in others.items() if each]
    show_table(("part", "version", "note" if differing else ""), [(a, b, c or " ") for a, b, c in rows])
