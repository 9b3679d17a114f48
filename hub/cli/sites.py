"""``status``, ``site ...``, ``broker ...``: what there is to run things on."""

from __future__ import annotations

import click

from hub.cli.results import show_brokers, show_sites, show_status
from hub.cli.session import Session, asynchronous, client_options


@click.command()
@client_options
@asynchronous
async def status(session: Session) -> None:
    """Show how it all is: sites, apps, images, operations."""
    async with session.client() as client:
        show_status(session, await client.status())


@click.group()
def site() -> None:
    """Sites: the places that apps run at."""


@site.command("list")
@client_options
@asynchronous
async def list_sites(session: Session) -> None:
    """List sites."""
    async with session.client() as client:
        show_sites(session, await client.sites())


@click.group()
def broker() -> None:
    """Brokers: what a site can provide."""


@broker.command("list")
@click.option("--site", "site_name", default=None, help="Only those of this site.")
@client_options
@asynchronous
async def list_brokers(session: Session, site_name: str | None) -> None:
    """List brokers with their plans."""
    async with session.client() as client:
        show_brokers(session, await client.brokers(site=site_name))
