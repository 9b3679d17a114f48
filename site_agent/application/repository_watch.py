"""Looks at what lies in the site's copy repositories and records what nobody recorded: they are a source of truth too.

Copies come there without this agent when others write into the same repository, when one is attached that was found
on a disk or a bucket, and when the site's own record was lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from schemas import brokers as wire
from schemas.problems import CalqueError, Problem, not_found
from schemas.repositories import ScannedImage
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.journal import Journal
from site_agent.domain import finding
from site_agent.domain.finding import Listing
from site_agent.domain.site import Site

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
LIST_SECONDS = 30.0
PAGE_IMAGES = 20
PEERS_SECONDS = 60.0
UNKNOWN_SECONDS = 10.0

AskSigners = Callable[[Sequence[str]], Awaitable[dict[str, str]]]
"""Which of these keys the hub knows as those of its sites: key -> site. Raises :class:`CalqueError`."""


class Scanned(NamedTuple):
    """What lies in one repository."""

    images: tuple[ScannedImage, ...]
    loose: int
    vanished: tuple[str, ...]


class _Kept(NamedTuple):
    """The last listing of a repository and the broker's word for it."""

    listing: Listing
    token: str


class RepositoryWatch:
    """``trusted`` are signing keys of the site's settings; ``look_seconds`` is how often it looks by itself."""

    def __init__(
        self,
        journal: Journal,
        brokers: Brokers,
        *,
        ask_signers: AskSigners,
        trusted: Collection[str] = (),
        look_seconds: float = LOOK_SECONDS,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._brokers = brokers
        self._ask_signers = ask_signers
        self._trusted = frozenset(trusted)
        self._look_seconds = look_seconds
        self._seconds = seconds
        self._kept: dict[str, _Kept] = {}
        self._seen: frozenset[str] = frozenset()
        self._missed: frozenset[tuple[str, str]] = frozenset()
        self._next_look = 0.0
        self._peers: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def look(self) -> None:
        """One round, when it is time for one or a repository is there that was not at the last."""
        there = frozenset(self._journal.site.repositories())
        now = self._seconds()
        if not there or (now < self._next_look and there <= self._seen):
            return
        async with self._lock:
            self._seen = there
            self._next_look = now + self._look_seconds
            await self._record(await self._listings())

    async def take_in(self, repository: str) -> Scanned:
        """Look now; what lay in ``repository`` before anything was recorded. Raises :class:`CalqueError`."""
        async with self._lock:
            listings = await self._listings(must=repository)
            trusted = await self._trust(listings)
            found = _scanned(self._journal.site, repository, listings, trusted)
            await self._record(listings)
            return found

    async def scan(self, repository: str) -> Scanned:
        """What lies in ``repository``; nothing is recorded. Raises :class:`CalqueError`."""
        if repository not in self._journal.site.repositories():
            there = ", ".join(self._journal.site.repositories()) or "none"
            problem: Problem = not_found(
                "repository",
                f"site {self._journal.site.name} has no copy repository {repository!r} that answers",
                f"there are: {there}",
            )
            raise CalqueError(problem)
        async with self._lock:
            listings = await self._listings(must=repository)
            trusted = await self._trust(listings)
            return _scanned(self._journal.site, repository, listings, trusted)

    async def _record(self, listings: list[Listing]) -> None:
        trusted = await self._trust(listings)
        missed = self._missed
        stored = await self._journal.record(
            lambda site: finding.facts(site, listings, trusted=trusted | site.signers.keys(), missed=missed),
            need="spare",
        )
        self._missed = frozenset(finding.missing(self._journal.site, listings))
        if stored:
            logger.info("%d facts found in the repositories", len(stored))

    async def _listings(self, *, must: str | None = None) -> list[Listing]:
        """What lies in all repositories that answer; one that does not is left out, unless it ``must``."""
        found: list[Listing] = []
        for name in self._journal.site.repositories():
            try:
                found.append(await self._listing(name))
            except CalqueError as error:
                if name == must:
                    raise
                logger.warning("repository %s can't be listed now: %s", name, error)
        return found

    async def _listing(self, name: str) -> Listing:
        # What is decided on this must not be undone by what was written to the record after it was asked for.
        since = self._journal.site.last_sequence
        kept = self._kept.get(name)
        asked = wire.ListCopies(known=kept.token if kept else "")
        copies = await self._brokers.once("crb", name, "list", asked, wire.CopyList, timeout_seconds=LIST_SECONDS)
        if kept is not None and copies.unchanged:
            listing = Listing(repository=name, copies=kept.listing.copies, images=kept.listing.images, since=since)
        else:
            listing = Listing(
                repository=name,
                copies={one.copy: one for one in copies.copies},
                images={one.content.image: one for one in await self._images(name)},
                since=since,
            )
        self._kept[name] = _Kept(listing, copies.token)
        return listing

    async def _images(self, name: str) -> list[wire.ListedImage]:
        found: list[wire.ListedImage] = []
        while True:
            asked = wire.ListImages(after=found[-1].content.image if found else "", limit=PAGE_IMAGES)
            page = await self._brokers.once("crb", name, "images", asked, wire.ImageList, timeout_seconds=LIST_SECONDS)
            found += page.images
            if not page.more or not page.images:
                return found

    async def _trust(self, listings: Iterable[Listing]) -> frozenset[str]:
        """The keys whose signatures count: the site's own, those that people trusted, and those of peers."""
        site = self._journal.site
        own = self._trusted.union(site.signers)
        signers = {listed.signed_by for listing in listings for listed in listing.images.values()}
        now = self._seconds()
        asked = sorted(key for key in signers - own if now >= self._asked.get(key, 0.0))
        if asked:
            try:
                known = await self._ask_signers(asked)
            except CalqueError as error:
                logger.info("the hub can't be asked about signing keys: %s", error)
            else:
                for key in asked:
                    self._peers.pop(key, None)
                    self._asked[key] = now + (PEERS_SECONDS if key in known else UNKNOWN_SECONDS)
                self._peers.update({key: peer for key, peer in known.items() if key in asked})
        return own.union(self._peers)


def _scanned(site: Site, repository: str, listings: list[Listing], trusted: Collection[str]) -> Scanned:
    of = next(one for one in listings if one.repository == repository)
    return Scanned(
        images=tuple(
            finding.scanned(listed, finding.judge(site, listed, listings, trusted))
            for _, listed in sorted(of.images.items())
        ),
        loose=finding.loose(of),
        vanished=tuple(copy for copy, where in finding.missing(site, listings) if where == repository),
    )
