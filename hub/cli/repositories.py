"""``repository ...``: where copies lie. What is found there is on record by itself, or at once by ``import``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click

from hub.cli.completion import repository_places, site_names
from hub.cli.kinds import IMAGES, REPOSITORIES
from hub.cli.lists import show_list, show_or_watch
from hub.cli.options import client_options, wait_options, watch_option
from hub.cli.output import size
from hub.cli.results import show_started
from hub.cli.session import Session, asynchronous
from hub.cli.tables import show_fields, show_table
from hub.client import Client, ConflictError, NotFoundError, Started
from schemas.problems import conflict, not_found
from schemas.queries import ImageView, OperationView
from schemas.repositories import RepositoryCondition, RepositoryView, ScanView

ENTERED_SECONDS = 10.0
"""How long to wait until what a site has found is in the catalog."""
AGAIN_SECONDS = 0.1

repository_argument = click.argument("repository_name", metavar="[SITE/]REPOSITORY", shell_complete=repository_places)
site_option = click.option(
    "--site", default=None, shell_complete=site_names, help="Its site, if several have one of that name."
)


@click.group()
def repository() -> None:
    """Copy repositories: what lies where, found, verified and cleared up."""


@repository.command("list")
@click.option("--site", default=None, shell_complete=site_names, help="Only those of this site.")
@watch_option
@client_options
@asynchronous
async def list_repositories(session: Session, site: str | None, watch: bool) -> None:
    """List copy repositories with what the record says lies there."""
    await show_or_watch(session, REPOSITORIES, lambda client: client.repositories(site=site), watch=watch)


@repository.command()
@repository_argument
@site_option
@client_options
@asynchronous
async def describe(session: Session, repository_name: str, site: str | None) -> None:
    """Show a copy repository: its images, how full it is, the key that it signs with."""
    async with session.client() as client:
        view = await _only(client, repository_name, site=site)
        now = await client.repository(view.name, site=view.site)
    if session.shown({"repository": view, "now": now}, _place(view)):
        return
    show_fields(
        {
            "name": _place(view),
            "state": view.state,
            "health": "good" if now.healthy else f"not good: {now.message}",
            "signing key": view.signing_key,
            "protocols": view.protocols,
            "version": view.version,
            "images": view.images,
            "copies on record": str(view.copies),
            "copies there": str(now.copies),
            "image manifests": str(now.images),
            "stored": size(now.stored),
            "retention": _retention(now.retention_seconds),
            "locked": _locked(now),
            "being written": size(now.staging) if now.staging else "",
            "free": size(now.free),
        }
    )


@repository.command()
@repository_argument
@site_option
@client_options
@asynchronous
async def scan(session: Session, repository_name: str, site: str | None) -> None:
    """Show what lies in a copy repository now, and what would be made of it. Nothing is recorded.

    known: on record. new: will be recorded by itself soon, or now by 'import'. untrusted: signed by a key that this
    site does not trust. incomplete, damaged: copies are missing, or are not those that the manifest names.
    """
    async with session.client() as client:
        view = await _only(client, repository_name, site=site)
        found = await client.scan_repository(view.name, site=view.site)
    if session.shown(found, *(one.image for one in found.images)):
        return
    show_table(
        ("status", "app", "template", "from", "saved", "size", "image", "message"),
        [
            (one.status, one.app, one.template, one.site, one.saved_at[:19], size(one.size), one.image, one.message)
            for one in found.images
        ],
        empty=f"no image lies in {_place(view)}",
        firm=frozenset({"status", "image"}),
    )
    _tell_rest(session, found)


def _tell_rest(session: Session, found: ScanView) -> None:
    if found.unlisted:
        session.say(f"{found.unlisted} more images are not shown")
    if found.loose:
        session.say(f"{found.loose} copies belong to no image there")
    if found.vanished:
        session.say(f"on record and not there any more: {', '.join(found.vanished)}")


@repository.command("import")
@repository_argument
@site_option
@click.option(
    "--trust", multiple=True, metavar="KEY", help="Take what this key has signed, now and later; may be repeated."
)
@wait_options
@client_options
@asynchronous
async def import_images(
    session: Session, repository_name: str, site: str | None, trust: tuple[str, ...], wait: bool, timeout: float | None
) -> None:
    """Put the images that lie in a copy repository on record now, without waiting for its site to notice them.

    An image's manifest is signed. A site takes what its own repositories have signed, and those of the other sites
    of its hub; other keys it has to be told to trust: 'calque repository scan' shows them.
    """
    async with session.client() as client:
        view = await _only(client, repository_name, site=site)
        started = await client.import_repository(view.name, site=view.site, trust=trust)
        if not wait:
            show_started(session, started, said=f"what lies in {_place(view)} is being recorded")
            return
        ended = await session.follow(client, started, timeout=timeout)
        result = _result(ended)
        images = await _entered(client, result.get("new", []))
    show_list(session, IMAGES, images)
    if signers := result.get("signers"):
        count = len(result["untrusted"])
        session.say(
            f"{count} {'image is' if count == 1 else 'images are'} signed by keys that {view.site} does not trust; to"
            f" take them: calque repository import {_place(view)} "
            + " ".join(f"--trust {signer}" for signer in signers)
        )
    for status in ("incomplete", "damaged"):
        if found := result.get(status):
            session.say(f"{status}: {', '.join(found)}; see 'calque repository scan {_place(view)}'")


async def _entered(client: Client, ids: Sequence[str]) -> list[ImageView]:
    """The catalog's entries of these images: it makes them when it hears of them."""
    deadline = time.monotonic() + ENTERED_SECONDS
    while True:
        known = {image.id: image for image in await client.images(all=True)}
        if all(id in known for id in ids) or time.monotonic() >= deadline:
            return [known[id] for id in ids if id in known]
        await asyncio.sleep(AGAIN_SECONDS)


@repository.command()
@repository_argument
@site_option
@click.option("--copy", "copies", multiple=True, metavar="COPY", help="Only this copy; may be repeated.")
@wait_options
@client_options
@asynchronous
async def verify(
    session: Session, repository_name: str, site: str | None, copies: tuple[str, ...], wait: bool, timeout: float | None
) -> None:
    """Read the copies of a repository and compare every digest. It fails when one is damaged."""
    async with session.client() as client:
        view = await _only(client, repository_name, site=site)
        await _tend(
            session,
            client,
            lambda: client.verify_repository(view.name, site=view.site, copies=copies),
            place=_place(view),
            wait=wait,
            timeout=timeout,
            said="is being verified",
            done=lambda result: f"{result.get('copies', 0)} copies are sound",
        )


@repository.command()
@repository_argument
@site_option
@wait_options
@client_options
@asynchronous
async def collect(session: Session, repository_name: str, site: str | None, wait: bool, timeout: float | None) -> None:
    """Remove data from a repository that no copy needs any more. It is done after each deletion, too."""
    async with session.client() as client:
        view = await _only(client, repository_name, site=site)
        await _tend(
            session,
            client,
            lambda: client.collect_repository(view.name, site=view.site),
            place=_place(view),
            wait=wait,
            timeout=timeout,
            said="is being cleared up",
            done=lambda result: f"{result.get('chunks', 0)} chunks removed, {size(result.get('bytes', 0)) or '0 B'}",
        )


async def _tend(
    session: Session,
    client: Client,
    verb: Callable[[], Awaitable[Started]],
    *,
    place: str,
    wait: bool,
    timeout: float | None,
    said: str,
    done: Callable[[dict[str, Any]], str],
) -> None:
    started = await verb()
    if not wait:
        show_started(session, started, said=f"{place} {said}")
        return
    ended = await session.follow(client, started, timeout=timeout)
    result = _result(ended)
    if not session.shown({"repository": place, **result}, place):
        click.echo(f"{place}  {done(result)}")


def _result(ended: OperationView | None) -> dict[str, Any]:
    """The result of an operation's one step."""
    results = [each for each in (ended.result.values() if ended else ()) if isinstance(each, dict)]
    return results[0] if results else {}


def _place(view: RepositoryView) -> str:
    return f"{view.site}/{view.name}"


async def _only(client: Client, asked: str, *, site: str | None) -> RepositoryView:
    where, slash, name = asked.rpartition("/")
    views = await client.repositories(site=where if slash else site)
    chosen = [view for view in views if view.name == name]
    if not chosen:
        there = ", ".join(_place(view) for view in views) or "none"
        raise NotFoundError(not_found("repository", f"there is no copy repository {asked!r}", f"there are: {there}"))
    if len(chosen) > 1:
        listed = ", ".join(_place(view) for view in chosen)
        raise ConflictError(
            conflict("repository", f"{asked!r} names {len(chosen)} repositories: {listed}", "name one of them")
        )
    return chosen[0]


def _retention(seconds: float) -> str:
    """As it is written in settings."""
    unit, length = next((each for each in (("d", 86400), ("h", 3600), ("m", 60)) if not seconds % each[1]), ("s", 1))
    return f"{seconds / length:.0f}{unit}" if seconds else ""


def _locked(now: RepositoryCondition) -> str:
    if not now.locked_copies:
        return ""
    return f"{size(now.locked)} of {now.locked_copies} copies, the last until {now.locked_until}"
