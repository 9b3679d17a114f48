"""``template ...``: topologies of applications."""

from __future__ import annotations

from pathlib import Path

import click

from hub.cli.output import show_json
from hub.cli.results import show_templates
from hub.cli.session import Session, asynchronous, client_options
from hub.manifest import load_template
from schemas.template_check import template_digest


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
    digest = template_digest(loaded)
    if session.json:
        show_json({"name": loaded.name, "version": loaded.version, "digest": digest})
    else:
        click.echo(f"{loaded.name}@{loaded.version}  applied  {digest[:12]}")


@template.command("list")
@click.option("--name", default=None, help="Only versions of this template.")
@client_options
@asynchronous
async def list_templates(session: Session, name: str | None) -> None:
    """List the versions that were applied, newest last."""
    async with session.client() as client:
        show_templates(session, await client.templates(name))
