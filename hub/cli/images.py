"""``save``, ``run``, ``image ...``: copies of apps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from hub.cli.apps import app_argument, finish, site_option
from hub.cli.choosing import choice_options
from hub.cli.completion import image_names, repository_names, site_names
from hub.cli.kinds import IMAGES
from hub.cli.lists import show_or_watch
from hub.cli.masking import rules_option
from hub.cli.options import client_options, deadline_option, wait_options, watch_option
from hub.cli.output import seconds, size
from hub.cli.planning import Planning, dry_run_option, name_option, new_site_option, planning_options
from hub.cli.results import show_image, show_started
from hub.cli.session import Session, asynchronous, confirm
from hub.cli.values import RateParameter
from hub.client import Client, Started
from hub.manifest import load_rules
from schemas.queries import ImageOrder, ImageView
from schemas.values import Choices, ImageState

image_argument = click.argument("image_name", metavar="IMAGE", shell_complete=image_names)
repository_option = click.option(
    "--repository",
    default=None,
    metavar="NAME",
    shell_complete=repository_names,
    help="The copy repository of the site to put copies into; else its policy picks one.",
)

bwlimit_option = click.option(
    "--bwlimit",
    type=RateParameter(),
    default="off",
    show_default=True,
    metavar="RATE",
    help="Move its data no faster than this, all data services together: 50MiB/s, 500K (powers of 1024), off.",
)


@click.command()
@app_argument
@click.option("--name", required=True, help="Name of the new image: a-z, 0-9 and '-', at most 40.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
@click.option("--comment", default="", help="What it is for.")
@click.option("--masked", is_flag=True, help="Mask the data as it leaves its source, by the template's rules.")
@rules_option
@site_option
@repository_option
@bwlimit_option
@planning_options
@wait_options
@client_options
@asynchronous
async def save(
    session: Session,
    app_name: str,
    name: str,
    tags: tuple[str, ...],
    comment: str,
    masked: bool,
    rules_file: Path | None,
    site: str | None,
    repository: str | None,
    bwlimit: int,
    planning: Planning,
    wait: bool,
    timeout: float | None,
) -> None:
    """Save a running app, with its data, as an image. Its users go on working.

    With --rules it is masked too. See 'calque mask check' for what rules would do.
    """
    masking = load_rules(rules_file) if rules_file else None

    async def verb(client: Client) -> Started:
        return await client.save(
            app_name,
            name=name,
            tags=tags,
            comment=comment,
            site=site,
            repository=repository,
            masked=masked,
            masking=masking,
            bytes_per_second=bwlimit,
            expected_plan=planning.expected,
            deadline_seconds=planning.deadline,
        )

    async with session.client() as client:
        if await planning.shown(session, client, verb):
            return
        started = await verb(client)
        if not wait:
            show_started(session, started, said=f"{app_name} is being saved as {name}")
            return
        await session.follow(client, started, timeout=timeout)
        _show_saved(session, await client.image(started.target))


def _show_saved(session: Session, image: ImageView) -> None:
    if session.shown(image, image.name):
        return
    waited = seconds(image.writers_wait_seconds)
    click.echo(
        f"{image.name}  {image.state} at {image.site}  {size(image.size)} ({size(image.stored)} stored)"
        f"  level {image.level}"
        + (", masked" if image.masked else "")
        + (f", writers waited {waited}" if waited else "")
    )


@click.command()
@image_argument
@new_site_option
@name_option
@choice_options
@repository_option
@planning_options
@wait_options
@client_options
@asynchronous
async def run(
    session: Session,
    image_name: str,
    site: str | None,
    name: str | None,
    choices: Choices,
    repository: str | None,
    planning: Planning,
    wait: bool,
    timeout: float | None,
) -> None:
    """Run an image as a new app, with a copy of its data. It is fetched first where it is missing."""

    async def verb(client: Client) -> Started:
        return await client.run(
            image_name,
            name=planning.named(name),
            site=planning.placed(site),
            environment=choices.environment,
            plans=choices.plans,
            environment_name=choices.environment_name,
            without=choices.without,
            including=choices.including,
            artifacts=choices.artifacts,
            repository=repository,
            expected_plan=planning.expected,
            deadline_seconds=planning.deadline,
        )

    async with session.client() as client:
        if await planning.shown(session, client, verb, site=site):
            return
        said = f"{image_name} is being run at {site} as {name}"
        await finish(session, client, await verb(client), wait=wait, timeout=timeout, said=said)


@click.group()
def image() -> None:
    """Images: saved copies of apps."""


@image.command("list")
@click.option("--all", "everything", is_flag=True, help="Those being saved, failed and deleted too.")
@click.option("--state", type=click.Choice(get_args(ImageState)), default=None, help="Only those in this state.")
@click.option("--site", default=None, shell_complete=site_names, help="Only those that lie at this site.")
@click.option("--template", default=None, metavar="NAME[@VERSION]", help="Only those of this template.")
@click.option("--tag", "tags", multiple=True, help="Only those with this tag; repeated, with all of them.")
@click.option("--match", "text", default=None, metavar="TEXT", help="Only those with this in name, comment or a tag.")
@click.option(
    "--sort", type=click.Choice(get_args(ImageOrder)), default="created", show_default=True, help="By what to order."
)
@click.option("--reverse", is_flag=True, help="The other way round: newest, last or largest first.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="At most so many; else all.")
@watch_option
@client_options
@asynchronous
async def list_images(
    session: Session,
    everything: bool,
    state: ImageState | None,
    site: str | None,
    template: str | None,
    tags: tuple[str, ...],
    text: str | None,
    sort: ImageOrder,
    reverse: bool,
    limit: int | None,
    watch: bool,
) -> None:
    """List saved images."""

    async def fetch(client: Client) -> Sequence[ImageView]:
        return await client.images(
            all=everything,
            state=state,
            site=site,
            template=template,
            tags=tags,
            text=text,
            sort=sort,
            descending=reverse,
            limit=limit,
        )

    await show_or_watch(session, IMAGES, fetch, watch=watch)


@image.command()
@image_argument
@client_options
@asynchronous
async def describe(session: Session, image_name: str) -> None:
    """Show an image with its parts."""
    async with session.client() as client:
        show_image(session, await client.image(image_name))


@image.command()
@image_argument
@click.option("--to", "site", required=True, shell_complete=site_names, help="The site that is to have it.")
@repository_option
@bwlimit_option
@deadline_option()
@wait_options
@client_options
@asynchronous
async def transfer(
    session: Session,
    image_name: str,
    site: str,
    repository: str | None,
    bwlimit: int,
    deadline: float | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Copy an image to another site, or into another repository of the same site. It stays where it was."""
    async with session.client() as client:
        found = await client.image(image_name)
        started = await client.transfer_image(
            found.id, site=site, repository=repository, bytes_per_second=bwlimit, deadline_seconds=deadline
        )
        if not wait:
            show_started(session, started, said=f"image {found.name} is being copied to {site}")
            return
        await session.follow(client, started, timeout=timeout)
        there = await client.image(found.id)
        if not session.shown(there, there.name):
            places = sorted({place for part in there.parts for place in part.locations})
            click.echo(f"{there.name}  {there.state} at {', '.join(places or there.sites)}")


@image.command()
@image_argument
@click.option("--name", default=None, help="Its new name.")
@click.option("--tag", "tags", multiple=True, help="A tag, in place of those there are; may be repeated.")
@click.option("--no-tags", is_flag=True, help="Take its tags away.")
@click.option("--comment", default=None, help="What it is for.")
@client_options
@asynchronous
async def edit(
    session: Session, image_name: str, name: str | None, tags: tuple[str, ...], no_tags: bool, comment: str | None
) -> None:
    """Change an image's name, tags or comment."""
    if tags and no_tags:
        raise click.UsageError("--tag and --no-tags exclude each other")
    async with session.client() as client:
        found = await client.image(image_name)
        chosen = tags if tags or no_tags else None
        await client.edit_image(found.id, name=name, tags=chosen, comment=comment)
        show_image(session, await client.image(found.id))


@image.command()
@image_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@wait_options
@client_options
@asynchronous
async def delete(
    session: Session, image_name: str, yes: bool, planning: Planning, wait: bool, timeout: float | None
) -> None:
    """Delete an image and its copies. Apps that run from it stay."""
    async with session.client() as client:
        found = await client.image(image_name)
        if await planning.shown(session, client, lambda client: client.delete_image(found.id)):
            return
        where = ", ".join(found.sites) or found.site
        confirm(session, kind="image", name=image_name, yes=yes, consequence=f"This removes its copies at {where}.")
        started = await client.delete_image(found.id)
        if not wait:
            show_started(session, started, said=f"image {found.name} is being deleted")
            return
        await session.follow(client, started, timeout=timeout)
        left = await client.image(found.id)
        if not session.shown(left, left.name):
            click.echo(f"{left.name}  {left.state}")
