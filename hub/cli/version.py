"""``version``: of this program, and of the hub it speaks to."""

from __future__ import annotations

from importlib import metadata

import click

from hub.cli.output import show_json
from hub.cli.session import Session, asynchronous, client_options
from schemas.problems import CalqueError


def own_version() -> str:
    """The version of this distribution."""
    return metadata.version("calque")


@click.command()
@client_options
@asynchronous
async def version(session: Session) -> None:
    """Show the versions of this program and of the hub."""
    mine = own_version()
    hub: str | None = None
    try:
        async with session.client() as client:
            hub = (await client.status()).version
    except CalqueError as error:
        session.say(f"hub: {error.problem.sentence()}")
    if session.json:
        show_json({"client": mine, "hub": hub})
        return
    click.echo(f"client  {mine}")
    if hub is not None:
        click.echo(f"hub     {hub}" + ("" if hub == mine else "  (another version than the client's)"))
