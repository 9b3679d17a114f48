"""Completion of the command line by a shell, with the names of what there is now.

A hub is asked for names with a short deadline; when it does not answer, nothing is offered and nothing is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from hub.cli.session import Session
from hub.client import Client
from hub.client.contexts import contexts_file, load_contexts
from schemas.problems import CalqueError

SECONDS = 1.0
SHELLS = ("bash", "zsh", "fish")
_HOW = """\
  bash:  calque completion bash > ~/.local/share/bash-completion/completions/calque
  zsh:   calque completion zsh > "${fpath[1]}/_calque"
  fish:  calque completion fish > ~/.config/fish/completions/calque.fish"""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Fetch = Callable[[Client, click.Context], Awaitable[Iterable[tuple[str, str]]]]


def context_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The named contexts."""
    try:
        known = load_contexts(contexts_file()).contexts
    except CalqueError:
        return []
    return _matching(
        ((name, context.home or ", ".join(context.servers)) for name, context in known.items()), incomplete
    )


def live(fetch: Fetch) -> Complete:
    """Completes with what ``fetch`` finds: names and a word about each."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        async def found() -> Iterable[tuple[str, str]]:
            async with asyncio.timeout(SECONDS), ctx.ensure_object(Session).client() as client:
                return await fetch(client, ctx)

        try:
            return _matching(asyncio.run(found()), incomplete)
        except (CalqueError, click.ClickException, TimeoutError, OSError):
            return []

    return complete


def _matching(found: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    known = {name: about for name, about in found if name.startswith(incomplete)}
    return [CompletionItem(name, help=about) for name, about in known.items()]


async def _apps(client: Client, ctx: click.Context) -> Iterable[tuple[str, str]]:
    return [(app.name, f"{app.state} at {app.site}") for app in await client.apps(site=ctx.params.get("site"))]


async def _images(client: Client, _: click.Context) -> Iterable[tuple[str, str]]:
    return [(image.name, image.comment or f"of {image.instance_name}") for image in await client.images()]


async def _operations(client: Client, _: click.Context) -> Iterable[tuple[str, str]]:
    return [(view.id, f"{view.kind} {view.name} {view.state}") for view in await client.operations(limit=20)]


async def _sites(client: Client, _: click.Context) -> Iterable[tuple[str, str]]:
    return [(site.name, site.state) for site in await client.sites()]


async def _templates(client: Client, _: click.Context) -> Iterable[tuple[str, str]]:
    views = await client.templates()
    newest = [(view.name, view.description or f"newest: {view.version}") for view in views]
    return [*newest, *((f"{view.name}@{view.version}", view.description) for view in views)]


async def _brokers(client: Client, _: click.Context) -> Iterable[tuple[str, str]]:
    views = await client.brokers()
    return [(f"{view.site}/{view.kind}-{view.name}", view.state) for view in views]


async def _secrets(client: Client, ctx: click.Context) -> Iterable[tuple[str, str]]:
    found = await client.secrets(site=ctx.params.get("site"))
    return [(secret.name, f"at {secret.site}") for secret in found]


async def _repositories(client: Client, ctx: click.Context) -> Iterable[tuple[str, str]]:
    views = await client.brokers(site=ctx.params.get("site"))
    return [(view.name, f"{view.state} at {view.site}") for view in views if view.kind == "crb"]


async def _places(client: Client, _: click.Context) -> Iterable[tuple[str, str]]:
    views = await client.repositories()
    return [(f"{view.site}/{view.name}", f"{view.state}, {len(view.images)} images") for view in views]


async def _webhooks(client: Client, _: click.Context) -> Iterable[tuple[str, str]]:
    return [(found.name, f"{found.state}, {found.spec.url}") for found in await client.webhooks.list()]


async def _services(client: Client, ctx: click.Context) -> Iterable[tuple[str, str]]:
    app = await client.app(str(ctx.params.get("app_name")), site=ctx.params.get("site"))
    return [(service.name, f"{service.type}, {service.state}") for service in app.services]


app_names = live(_apps)
image_names = live(_images)
operation_ids = live(_operations)
site_names = live(_sites)
template_names = live(_templates)
broker_names = live(_brokers)
secret_names = live(_secrets)
webhook_names = live(_webhooks)
service_names = live(_services)
repository_names = live(_repositories)
repository_places = live(_places)


@click.command(epilog=f"\b\nTo install it:\n{_HOW}")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes calque's commands and live names in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    # The template itself: rendering it by the class would start the shell to look at its version.
    made = kind(ctx.find_root().command, {}, "calque", "_CALQUE_COMPLETE")
    click.echo(kind.source_template % made.source_vars())
