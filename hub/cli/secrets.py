"""``secret ...``: what a site is trusted with. A value comes from a file, stdin or a prompt, never from an argument."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click

from hub.cli.completion import secret_names, site_names
from hub.cli.kinds import SECRETS
from hub.cli.lists import show_list
from hub.cli.options import client_options
from hub.cli.session import Session, asynchronous, confirm
from schemas.secrets import Secret

name_argument = click.argument("name", metavar="NAME", shell_complete=secret_names)
site_option = click.option("--site", required=True, shell_complete=site_names, help="The site that keeps it.")


@click.group()
def secret() -> None:
    """Secrets of sites, for 'secret:NAME' in deployments and templates."""


@secret.command("set")
@name_argument
@site_option
@click.option("--from-file", "file", type=click.File("rb"), default=None, help="Read the value from here; - is stdin.")
@client_options
@asynchronous
async def set_secret(session: Session, name: str, site: str, file: BinaryIO | None) -> None:
    """Give a site a secret, in place of the one of this name.

    The value is read from --from-file, else from stdin, else it is asked for on the terminal. Line ends at its end
    are dropped. It is sealed to the site's key: the hub passes it on and can't read it.
    """
    value = _value(name, file)
    async with session.client() as client:
        changed = await client.set_secret(name, value, site=site)
    if not session.shown(changed, name):
        click.echo(f"{name}  version {changed.version} at {site}")


@secret.command("list")
@click.option("--site", default=None, shell_complete=site_names, help="Only those of this site.")
@client_options
@asynchronous
async def list_secrets(session: Session, site: str | None) -> None:
    """List secrets: names and who set them, never values."""
    async with session.client() as client:
        show_list(session, SECRETS, await client.secrets(site=site))


@secret.command("remove")
@name_argument
@site_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
@asynchronous
async def remove_secret(session: Session, name: str, site: str, yes: bool) -> None:
    """Make a site forget a secret."""
    confirm(session, kind="secret", name=name, yes=yes, consequence=f"This removes the secret {name} of site {site}.")
    async with session.client() as client:
        changed = await client.remove_secret(name, site=site)
    if not session.shown(changed, name):
        click.echo(f"{name}  removed at {site}")


def _value(name: str, file: BinaryIO | None) -> Secret:
    if file is None and sys.stdin.isatty():
        typed = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
        return Secret(value=str(typed))
    read = (file or sys.stdin.buffer).read()
    try:
        return Secret(value=read.decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise click.UsageError("the value is no UTF-8 text: encode it first, such as with base64") from None
