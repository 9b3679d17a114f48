"""What lies in the repositories of a site against what is on record: images and copies that nobody recorded, and
copies that are gone. Pure.

A listing is older than the decision that is made of it. So whatever an operation works on now, or was written to the
record since the listing was asked for, is left for the next look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schemas import events as ev
from schemas.brokers import ListedImage
from schemas.repositories import FoundStatus, ScannedImage
from schemas.values import CopySummary, ImageContent, ImagePart
from site_agent.domain.masking import not_accepted
from site_agent.domain.site import Draft, Site


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lay in ``repository`` (its name) some time after the event ``since`` of the site's stream was written."""

    repository: str
    copies: Mapping[str, CopySummary]
    images: Mapping[str, ListedImage]
    since: int


class Verdict(NamedTuple):
    """What is to be made of an image manifest in a repository, and why."""

    status: FoundStatus
    message: str = ""


def judge(site: Site, listed: ListedImage, listings: Collection[Listing], trusted: Collection[str]) -> Verdict:
    """One manifest, given what lies in all repositories of the site that were listed."""
    wrong: list[str] = []
    lacking: list[str] = []
    recorded = True
    for part in parts_of(listed.content):
        found = [one.copies[part.copy] for one in listings if part.copy in one.copies]
        if not found and not site.has_copy(part.copy):
            lacking.append(part.data_service)
        if any(part.merkle_root and summary.merkle_root != part.merkle_root for summary in found):
            wrong.append(part.data_service)
        recorded = recorded and not list(_unrecorded(site, part, listings))
    if wrong:
        return Verdict("damaged", f"other data than the manifest says: {', '.join(wrong)}")
    if recorded and _on_record(site, listed.content):
        return Verdict("known")
    if listed.signed_by not in trusted:
        return Verdict("untrusted", f"signed by {listed.signed_by}")
    if problem := not_accepted(site, parts_of(listed.content)):
        return Verdict("unmasked", problem.message)
    if lacking:
        return Verdict("incomplete", f"no copy of {', '.join(lacking)}")
    return Verdict("new")


def facts(
    site: Site, listings: Collection[Listing], *, trusted: Collection[str], missed: Collection[tuple[str, str]]
) -> list[Draft]:
    """What is to be recorded. ``missed`` are the (copy, repository) that the look before did not see either."""
    drafts: list[Draft] = []
    busy = _busy(site)
    entered: set[str] = set()
    for listing in listings:
        for image, listed in listing.images.items():
            if image in entered or image in busy or _failed(site, image) or _touched(site, "image", image, listings):
                continue
            if judge(site, listed, listings, trusted).status != "new":
                continue
            entered.add(image)
            places = list(_locations(site, listed.content, listings))
            if len(places) != sum(1 for _ in _all_unrecorded(site, listed.content, listings)):
                continue  # something is being done about one of them
            if image not in site.images:
                found = ev.ImageFound(
                    content=listed.content, repository=site.place(listing.repository), signer=listed.signed_by
                )
                drafts.append(Draft("image", image, found))
            drafts += places
    drafts += [
        Draft("location", site.location(copy, site.place(repository)), _lost(site, copy, repository))
        for copy, repository in missing(site, listings)
        if (copy, repository) in missed
    ]
    return drafts


def missing(site: Site, listings: Iterable[Listing]) -> list[tuple[str, str]]:
    """The (copy, repository) that are on record and were not there, but for those that something is done about."""
    busy = _busy(site)
    by_name = {listing.repository: listing for listing in listings}
    found: list[tuple[str, str]] = []
    for key, location in site.locations.items():
        listing = by_name.get(location.repository.partition("/")[2])
        if listing is None or location.copy in listing.copies or location.copy in busy or location.image in busy:
            continue
        if site.sequences.get(("location", key), 0) <= listing.since:
            found.append((location.copy, listing.repository))
    return found


def scanned(listed: ListedImage, verdict: Verdict) -> ScannedImage:
    """One line of a scan."""
    content = listed.content
    first = content.instances[0] if content.instances else None
    template = first.configuration.template if first else None
    return ScannedImage(
        image=content.image,
        status=verdict.status,
        signer=listed.signed_by,
        app=", ".join(one.instance_name for one in content.instances),
        template=f"{template.name}@{template.version}" if template else "",
        site=content.site,
        saved_at=content.saved_at,
        size=sum(part.size for part in parts_of(content)),
        message=verdict.message,
    )


def parts_of(content: ImageContent) -> Iterator[ImagePart]:
    """The parts of all instances."""
    for one in content.instances:
        yield from one.parts


def loose(listing: Listing) -> int:
    """How many copies no image manifest of the repository names."""
    named = {part.copy for listed in listing.images.values() for part in parts_of(listed.content)}
    return len(listing.copies.keys() - named)


def _lost(site: Site, copy: str, repository: str) -> ev.LocationLost:
    return ev.LocationLost(copy=copy, repository=site.place(repository))


def _unrecorded(site: Site, part: ImagePart, listings: Collection[Listing]) -> Iterator[Listing]:
    for listing in listings:
        if part.copy in listing.copies and not site.holds(part.copy, listing.repository):
            yield listing


def _all_unrecorded(site: Site, content: ImageContent, listings: Collection[Listing]) -> Iterator[Listing]:
    for part in parts_of(content):
        yield from _unrecorded(site, part, listings)


def _locations(site: Site, content: ImageContent, listings: Collection[Listing]) -> Iterator[Draft]:
    for part in parts_of(content):
        for listing in _unrecorded(site, part, listings):
            place = site.place(listing.repository)
            key = site.location(part.copy, place)
            if site.sequences.get(("location", key), 0) <= listing.since:
                summary = listing.copies[part.copy]
                event = ev.LocationAdded(
                    copy=part.copy,
                    repository=place,
                    image=content.image,
                    stored=summary.stored,
                    found=True,
                    keep_until=summary.keep_until,
                )
                yield Draft("location", key, event)


def _on_record(site: Site, content: ImageContent) -> bool:
    """Whether the site knows the image: it made or found it, or fetched all copies, or handles it otherwise."""
    if content.image in site.images:
        return True
    parts = list(parts_of(content))
    if parts:
        return all(site.has_copy(part.copy) for part in parts)
    return any(one.accepted.request.get("image") == content.image for one in site.operations.values())


def _failed(site: Site, image: str) -> bool:
    known = site.images.get(image)
    return known is not None and known.state != "saved"


def _touched(site: Site, aggregate: str, id: str, listings: Iterable[Listing]) -> bool:
    return any(site.sequences.get((aggregate, id), 0) > listing.since for listing in listings)


def _busy(site: Site) -> set[str]:
    """Copies and images that operations work on now."""
    found: set[str] = set()
    for operation in site.live_operations():
        request = operation.accepted.request
        found.update(request.get("copies", {}).values() if isinstance(request.get("copies"), dict) else ())
        if "image" in request:
            found.add(request["image"])
    return found
