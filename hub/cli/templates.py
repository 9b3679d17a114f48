"""``template ...``: topologies of applications."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from hub.cli.colour import colour
from hub.cli.completion import template_names
from hub.cli.exits import Exit
from hub.cli.kinds import TEMPLATES
from hub.cli.lists import show_or_watch
from hub.cli.options import client_options, document_options, no_color_option, output_option, watch_option
from hub.cli.output import plain, yaml_text
from hub.cli.session import Session, asynchronous
from hub.cli.template_results import show_template
from hub.cli.values import template_ref
from hub.client import Client
from hub.manifest import load_template
from schemas.template_check import template_digest
from schemas.values import Template

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
_template = click.argument("template", metavar="TEMPLATE[@VERSION]", shell_complete=template_names)


@click.group()
def template() -> None:
    """App templates: which services an app is made of."""


@template.command("apply")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@client_options
@asynchronous
async def apply_template(session: Session, file: Path) -> None:
    """Check a template file and record it. A version, once applied, never changes."""
    loaded = load_template(file)
    async with session.client() as client:
        await client.apply_template(loaded)
    _show_identity(session, loaded, did="applied")


@template.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@no_color_option
@output_option(("table", "json", "yaml", "name"))
@click.pass_obj
def validate(session: Session, file: Path) -> None:
    """Check a template file, without a hub. Every fault is told with its line and field."""
    _show_identity(session, load_template(file), did="valid")


@template.command("list")
@click.option("--name", default=None, help="Only versions of this template.")
@watch_option
@client_options
@asynchronous
async def list_templates(session: Session, name: str | None, watch: bool) -> None:
    """List the versions that were applied, newest last."""
    await show_or_watch(session, TEMPLATES, lambda client: client.templates(name), watch=watch)


@template.command()
@_template
@client_options
@asynchronous
async def describe(session: Session, template: str) -> None:
    """Show all that a template holds; its newest version, if none is named."""
    wanted = template_ref(template)
    async with session.client() as client:
        found = await client.template(wanted.name, version=wanted.version)
    if session.shown(found, f"{found.name}@{found.version}"):
        return
    show_template(found)


@template.command()
@click.argument("first", metavar="FILE|TEMPLATE[@VERSION]", shell_complete=template_names)
@click.argument("second", metavar="[FILE|TEMPLATE[@VERSION]]", required=False, shell_complete=template_names)
@click.option("--exit-code", is_flag=True, help="Exit with 1 when they differ.")
@document_options
@asynchronous
async def diff(session: Session, first: str, second: str | None, exit_code: bool) -> int:
    """Show what the second template changes of the first. One file alone: what it changes of what was applied last.

    What has a '/' or ends in .yaml or .yml is a file.
    """
    if second is None and not _is_file(first):
        raise click.UsageError("name a second template, or one file alone to compare it with what was applied last")
    if second is None:
        changed = load_template(Path(first))
        async with session.client() as client:
            base = await client.template(changed.name)
    elif _is_file(first) and _is_file(second):
        base, changed = load_template(Path(first)), load_template(Path(second))
    else:
        async with session.client() as client:
            base, changed = await _load(client, first), await _load(client, second)
    lines = list(
        difflib.unified_diff(
            yaml_text(base, sort=True).splitlines(),
            yaml_text(changed, sort=True).splitlines(),
            f"{base.name}@{base.version}",
            f"{changed.name}@{changed.version}" + (f" ({second or first})" if _is_file(second or first) else ""),
            lineterm="",
        )
    )
    if not session.shown({"same": not lines, "diff": lines, "first": plain(base), "second": plain(changed)}):
        for line in lines:
            click.echo(click.style(line, fg=_COLOURS.get(line[:1])), color=colour(sys.stdout))
        if not lines:
            session.say("no difference")
    return Exit.FAILED if exit_code and lines else Exit.OK


async def _load(client: Client, name: str) -> Template:
    if _is_file(name):
        return load_template(Path(name))
    wanted = template_ref(name)
    return await client.template(wanted.name, version=wanted.version)


def _is_file(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


def _show_identity(session: Session, loaded: Template, *, did: str) -> None:
    digest = template_digest(loaded)
    name = f"{loaded.name}@{loaded.version}"
    if not session.shown({"name": loaded.name, "version": loaded.version, "digest": digest}, name):
        click.echo(f"{name}  {did}  {digest[:12]}")
