"""``deploy``, ``app ...``: instances from their deployment to their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click

from hub.cli.choosing import choice_options
from hub.cli.completion import app_names, service_names, site_names, template_names
from hub.cli.kinds import APPS
from hub.cli.lists import show_or_watch
from hub.cli.options import client_options, wait_options, watch_option
from hub.cli.output import shown_line
from hub.cli.planning import Planning, name_option, new_site_option, planning_options
from hub.cli.results import show_app, show_started
from hub.cli.session import Session, asynchronous, confirm
from hub.cli.values import attachments, template_ref
from hub.client import Client, Started
from hub.client.names import address
from schemas.queries import AppView
from schemas.values import Choices

site_option = click.option(
    "--site",
    default=None,
    shell_complete=site_names,
    help="Where the app runs, if its name is used at several sites.",
)
app_argument = click.argument("app_name", metavar="APP", shell_complete=app_names)
attach_option = click.option(
    "--attach",
    "attach",
    multiple=True,
    metavar="DATA-SERVICE=URL",
    help="Use what was there before, never to be changed or removed by us; may be repeated. No password in the URL.",
)
attach_secret_option = click.option(
    "--attach-secret",
    "attach_secrets",
    multiple=True,
    metavar="DATA-SERVICE=SECRET",
    help="The site's secret that opens it, see 'calque secret set'; may be repeated.",
)


async def finish(
    session: Session, client: Client, started: Started, *, wait: bool, timeout: float | None, said: str
) -> None:
    """Wait for a new app, or for a change of one, and show the app."""
    if not wait:
        show_started(session, started, said=said)
        return
    await session.follow(client, started, timeout=timeout)
    _show_outcome(session, await client.app(started.target))


def _show_outcome(session: Session, app: AppView) -> None:
    if session.shown(app, app.name):
        return
    url = f"  {app.url}" if app.url else ""
    click.echo(f"{app.name}  {app.state} at {app.site}{url}")


@click.command()
@click.argument("template", metavar="TEMPLATE[@VERSION]", shell_complete=template_names)
@new_site_option
@name_option
@choice_options
@attach_option
@attach_secret_option
@planning_options
@wait_options
@client_options
@asynchronous
async def deploy(
    session: Session,
    template: str,
    site: str | None,
    name: str | None,
    choices: Choices,
    attach: tuple[str, ...],
    attach_secrets: tuple[str, ...],
    planning: Planning,
    wait: bool,
    timeout: float | None,
) -> None:
    """Deploy a template as a new app, with empty data services, or those that --attach names.

    Without a version, the newest that was applied.
    """
    wanted, existing = template_ref(template), attachments(attach, attach_secrets)

    async def verb(client: Client) -> Started:
        return await client.deploy(
            wanted,
            name=planning.named(name),
            site=planning.placed(site),
            environment=choices.environment,
            plans=choices.plans,
            environment_name=choices.environment_name,
            without=choices.without,
            including=choices.including,
            artifacts=choices.artifacts,
            attach=existing,
            expected_plan=planning.expected,
            deadline_seconds=planning.deadline,
        )

    async with session.client() as client:
        if await planning.shown(session, client, verb, site=site):
            return
        said = f"{name} is being deployed at {site}"
        await finish(session, client, await verb(client), wait=wait, timeout=timeout, said=said)


@click.group()
def app() -> None:
    """Apps: what runs, where, and how it is."""


@app.command("list")
@click.option("--site", default=None, shell_complete=site_names, help="Only those at this site.")
@click.option("--all", "everything", is_flag=True, help="Deleted ones too.")
@watch_option
@client_options
@asynchronous
async def list_apps(session: Session, site: str | None, everything: bool, watch: bool) -> None:
    """List apps."""
    await show_or_watch(session, APPS, lambda client: client.apps(site=site, all=everything), watch=watch)


@app.command()
@app_argument
@click.option("--config", is_flag=True, help="Also every variable, its value and where that comes from.")
@site_option
@client_options
@asynchronous
async def describe(session: Session, app_name: str, config: bool, site: str | None) -> None:
    """Show an app with its services and bindings (no secrets)."""
    async with session.client() as client:
        show_app(session, await client.app(app_name, site=site, configuration=config))


@app.command()
@app_argument
@click.option("--service", default=None, shell_complete=service_names, help="The app service; else the entry point.")
@site_option
@client_options
@asynchronous
async def url(session: Session, app_name: str, service: str | None, site: str | None) -> None:
    """Print where an app answers, and nothing else: for scripts."""
    async with session.client() as client:
        found = await client.app(app_name, site=site)
        here = address(found, service=service)
        if not session.shown({"app": found.name, "site": found.site, "url": here}, here):
            click.echo(here)


@app.command()
@app_argument
@click.option("--service", default=None, shell_complete=service_names, help="The app service; else the entry point.")
@click.option(
    "-n", "--lines", default=100, show_default=True, type=click.IntRange(0, 10_000), help="How many of the last."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come.")
@site_option
@client_options
@asynchronous
async def logs(
    session: Session, app_name: str, service: str | None, lines: int, follow: bool, site: str | None
) -> None:
    """Show what an app service wrote. With -f as JSON: one document per line."""
    async with session.client() as client:
        if follow:
            async for line in client.follow_logs(app_name, service=service, lines=lines, site=site):
                if not shown_line(session.format, {"line": line}):
                    click.echo(line)
            return
        found = await client.logs(app_name, service=service, lines=lines, site=site)
        if session.shown(found):
            return
        for line in found.lines:
            click.echo(line)


async def _change(
    session: Session,
    verb: Callable[[Client], Awaitable[Started]],
    *,
    planning: Planning,
    wait: bool,
    timeout: float | None,
    said: str,
) -> None:
    async with session.client() as client:
        if not await planning.shown(session, client, verb):
            await finish(session, client, await verb(client), wait=wait, timeout=timeout, said=said)


@app.command()
@app_argument
@site_option
@planning_options
@wait_options
@client_options
@asynchronous
async def stop(
    session: Session, app_name: str, site: str | None, planning: Planning, wait: bool, timeout: float | None
) -> None:
    """Stop an app's services; data is kept."""
    await _change(
        session,
        lambda client: client.stop(
            app_name, site=site, expected_plan=planning.expected, deadline_seconds=planning.deadline
        ),
        planning=planning,
        wait=wait,
        timeout=timeout,
        said=f"{app_name} is being stopped",
    )


@app.command()
@app_argument
@site_option
@planning_options
@wait_options
@client_options
@asynchronous
async def start(
    session: Session, app_name: str, site: str | None, planning: Planning, wait: bool, timeout: float | None
) -> None:
    """Start a stopped app."""
    await _change(
        session,
        lambda client: client.start(
            app_name, site=site, expected_plan=planning.expected, deadline_seconds=planning.deadline
        ),
        planning=planning,
        wait=wait,
        timeout=timeout,
        said=f"{app_name} is being started",
    )


@app.command()
@app_argument
@site_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@planning_options
@wait_options
@client_options
@asynchronous
async def delete(
    session: Session,
    app_name: str,
    site: str | None,
    yes: bool,
    planning: Planning,
    wait: bool,
    timeout: float | None,
) -> None:
    """Remove an app with its data. Images saved from it stay."""
    async with session.client() as client:
        found = await client.app(app_name, site=site)
        where = f"{found.name} at {found.site}"

        async def verb(client: Client) -> Started:
            return await client.delete(found.id, expected_plan=planning.expected, deadline_seconds=planning.deadline)

        if await planning.shown(session, client, verb):
            return
        kept = ", ".join(data.name for data in found.data_services if data.origin == "attached")
        consequence = f"This removes {where} with all its data"
        consequence += f", but for what is attached: {kept}." if kept else "."
        confirm(session, kind="app", name=app_name, yes=yes, consequence=consequence)
        await finish(session, client, await verb(client), wait=wait, timeout=timeout, said=f"{where} is being deleted")


@app.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--template",
    required=True,
    metavar="NAME[@VERSION]",
    shell_complete=template_names,
    help="What the app looks like.",
)
@click.option("--site", required=True, shell_complete=site_names, help="The site whose brokers reach its data.")
@attach_option
@attach_secret_option
@planning_options
@wait_options
@client_options
@asynchronous
async def adopt(
    session: Session,
    name: str,
    template: str,
    site: str,
    attach: tuple[str, ...],
    attach_secrets: tuple[str, ...],
    planning: Planning,
    wait: bool,
    timeout: float | None,
) -> None:
    """Take in an app that runs already, deployed by somebody else, so that it can be saved.

    Its app services stay what and where they are; its data services are attached, each named with --attach. An image
    of it runs elsewhere as any other does, with data services of its own.
    """
    wanted, existing = template_ref(template), attachments(attach, attach_secrets)

    async def verb(client: Client) -> Started:
        return await client.deploy(
            wanted,
            name=name,
            site=site,
            attach=existing,
            adopted=True,
            expected_plan=planning.expected,
            deadline_seconds=planning.deadline,
        )

    async with session.client() as client:
        if await planning.shown(session, client, verb, site=site):
            return
        said = f"{name} is being adopted at {site}"
        await finish(session, client, await verb(client), wait=wait, timeout=timeout, said=said)
