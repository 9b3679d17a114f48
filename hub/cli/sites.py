"""``site ...``, ``broker ...``: what there is to run things on."""

from __future__ import annotations

import click

from hub.cli.completion import broker_names, site_names
from hub.cli.kinds import BROKERS, SITES
from hub.cli.lists import show_or_watch
from hub.cli.options import client_options, watch_option
from hub.cli.results import show_broker, show_site
from hub.cli.session import Session, asynchronous
from hub.client import ConflictError, NotFoundError
from schemas.problems import conflict, not_found
from schemas.queries import BrokerView

site_option = click.option(
    "--site", "site_name", default=None, shell_complete=site_names, help="Only those of this site."
)


@click.group()
def site() -> None:
    """Sites: the places that apps run at."""


@site.command("list")
@watch_option
@client_options
@asynchronous
async def list_sites(session: Session, watch: bool) -> None:
    """List sites."""
    await show_or_watch(session, SITES, lambda client: client.sites(), watch=watch)


@site.command("describe")
@click.argument("site_name", metavar="SITE", shell_complete=site_names)
@client_options
@asynchronous
async def describe_site(session: Session, site_name: str) -> None:
    """Show a site with its brokers and apps."""
    async with session.client() as client:
        sites = {each.name: each for each in await client.sites()}
        if site_name not in sites:
            listed = ", ".join(sorted(sites)) or "none"
            raise NotFoundError(not_found("site", f"there is no site {site_name!r}", f"there are: {listed}"))
        brokers = await client.brokers(site=site_name)
        show_site(session, sites[site_name], apps=await client.apps(site=site_name), brokers=brokers)


@click.group()
def broker() -> None:
    """Brokers: what a site can provide."""


@broker.command("list")
@site_option
@watch_option
@client_options
@asynchronous
async def list_brokers(session: Session, site_name: str | None, watch: bool) -> None:
    """List brokers with their plans."""
    await show_or_watch(session, BROKERS, lambda client: client.brokers(site=site_name), watch=watch)


@broker.command("describe")
@click.argument("broker_name", metavar="[SITE/]BROKER", shell_complete=broker_names)
@site_option
@client_options
@asynchronous
async def describe_broker(session: Session, broker_name: str, site_name: str | None) -> None:
    """Show a broker with its plans and what they cost. BROKER is KIND-NAME or NAME, such as dsb-postgres."""
    where, slash, short = broker_name.rpartition("/")
    async with session.client() as client:
        found = await client.brokers(site=where if slash else site_name)
    show_broker(session, _only(short, found, asked=broker_name))


def _only(name: str, found: tuple[BrokerView, ...], *, asked: str) -> BrokerView:
    chosen = [each for each in found if name in (f"{each.kind}-{each.name}", each.name)]
    if not chosen:
        raise NotFoundError(not_found("broker", f"there is no broker {asked!r}", "see 'calque broker list'"))
    if len(chosen) > 1:
        listed = ", ".join(f"{each.site}/{each.kind}-{each.name}" for each in chosen)
        raise ConflictError(conflict("broker", f"{asked!r} names {len(chosen)} brokers: {listed}", "name one of them"))
    return chosen[0]
