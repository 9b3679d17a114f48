"""What lies in a site's repositories against its record: found, untrusted, damaged, incomplete, gone."""

from __future__ import annotations

import msgspec
import pytest

from schemas import commands as cmd
from schemas import events as ev
from schemas.brokers import ListedImage
from schemas.ids import new_id
from schemas.masking import Masked
from schemas.problems import Problem
from schemas.repositories import FoundStatus
from schemas.values import CopySummary, ImageContent
from site_agent.domain import finding
from site_agent.domain.finding import Listing
from site_agent.domain.site import Draft
from tests.unit.site_agent.test_placing import VAULT, saved, two
from tests.unit.site_agent.world import BY, World, good

OWN, PEER, STRANGE = "a" * 64, "b" * 64, "c" * 64


def made_elsewhere() -> ImageContent:
    """An image that another site has saved."""
    return saved(World())


def listing(
    world: World, *contents: ImageContent, name: str = "filesystem", signer: str = OWN, but: tuple[str, ...] = ()
) -> Listing:
    """What lies in a repository now: these images with their copies, ``but`` those of some data services."""
    copies = {
        part.copy: CopySummary(copy=part.copy, merkle_root=part.merkle_root, manifest_digest="d", size=10, stored=4)
        for content in contents
        for part in finding.parts_of(content)
        if part.data_service not in but
    }
    listed = {content.image: ListedImage(content=content, signed_by=signer) for content in contents}
    return Listing(repository=name, copies=copies, images=listed, since=world.site.last_sequence)


def look(world: World, *listings: Listing, trusted: set[str] | None = None) -> list[Draft]:
    """The facts of one look, recorded."""
    drafts = finding.facts(world.site, listings, trusted=trusted or {OWN, PEER}, missed=set())
    world.tell(*drafts)
    return drafts


def status(world: World, *listings: Listing) -> FoundStatus:
    [listed] = listings[0].images.values()
    return finding.judge(world.site, listed, listings, {OWN, PEER}).status


def test_an_image_of_others_is_found_with_the_places_of_its_copies_once() -> None:
    world, content = two(), made_elsewhere()
    there = listing(world, content)
    assert status(world, there) == "new"
    [found, *locations] = [draft.event for draft in look(world, there)]
    assert isinstance(found, ev.ImageFound)
    assert (found.content, found.repository, found.signer) == (content, "north/filesystem", OWN)
    assert {one.copy for one in locations if isinstance(one, ev.LocationAdded) and one.found} == {
        part.copy for part in finding.parts_of(content)
    }
    assert look(world, listing(world, content)) == []
    assert status(world, listing(world, content)) == "known"


def test_what_was_found_runs_is_copied_and_forgotten_like_what_was_saved() -> None:
    world, content = two(), made_elsewhere()
    look(world, listing(world, content))
    ran = world.send(cmd.SiteRunImage(by=BY, name="back", content=content), new_id())
    assert isinstance(ran, str)
    assert world.run(ran, good).state == "succeeded"
    moved = world.send(cmd.SiteTransferImage(by=BY, content=content, source="north", repository="vault"), content.image)
    assert isinstance(moved, str)
    assert world.run(moved, good).state == "succeeded"
    gone = world.send(cmd.SiteForgetImage(by=BY, content=content), content.image)
    assert isinstance(gone, str)
    assert world.run(gone, good).state == "succeeded"
    assert not world.site.locations


def test_what_an_unknown_key_signed_is_not_taken_until_somebody_trusts_it() -> None:
    world, content = two(), made_elsewhere()
    assert status(world, listing(world, content, signer=STRANGE)) == "untrusted"
    assert look(world, listing(world, content, signer=STRANGE)) == []
    importing = cmd.SiteImportRepository(by=BY, trust=(STRANGE,))
    assert isinstance(world.send(importing, "north@filesystem"), str)
    assert STRANGE in world.site.signers
    drafts = look(world, listing(world, content, signer=STRANGE), trusted=set(world.site.signers))
    assert any(isinstance(draft.event, ev.ImageFound) for draft in drafts)


def test_an_image_that_is_not_masked_is_not_taken_where_only_masked_ones_are() -> None:
    world, content = two(), made_elsewhere()
    world.site.images_accepted = "masked"
    assert status(world, listing(world, content)) == "unmasked"
    assert look(world, listing(world, content)) == []
    harmless = Masked(rules="d", keep=True)
    instances = tuple(
        msgspec.structs.replace(one, parts=tuple(msgspec.structs.replace(part, masked=harmless) for part in one.parts))
        for one in content.instances
    )
    masked = msgspec.structs.replace(content, instances=instances)
    assert status(world, listing(world, masked)) == "new"


def test_a_key_that_is_none_and_a_repository_that_is_not_there_are_refused() -> None:
    world = two()
    wrong = world.send(cmd.SiteImportRepository(by=BY, trust=("me",)), "north@filesystem")
    assert isinstance(wrong, Problem)
    assert wrong.field == "trust[0]"
    for target in ("north@cellar", "south@filesystem", "filesystem"):
        nowhere = world.send(cmd.SiteVerifyRepository(by=BY), target)
        assert isinstance(nowhere, Problem)
        assert nowhere.code == "not_found"
    unheld = world.send(cmd.SiteVerifyRepository(by=BY, copies=("x",)), "north@vault")
    assert isinstance(unheld, Problem)
    assert unheld.field == "copies"


def test_an_image_that_lacks_a_copy_waits_and_one_whose_copies_lie_in_two_repositories_is_whole() -> None:
    world, content = two(), made_elsewhere()
    half = listing(world, content, but=("files",))
    assert status(world, half) == "incomplete"
    assert look(world, half) == []
    other = listing(world, content, name="vault", but=("db",))
    drafts = look(world, half, other)
    assert sorted(draft.event.EVENT for draft in drafts) == ["added", "added", "found"]
    places = {part.data_service: world.site.holders(part.copy) for part in finding.parts_of(content)}
    assert places == {"db": ["filesystem"], "files": ["vault"]}


def test_a_copy_that_is_not_the_one_that_was_signed_for_is_damaged_and_not_taken() -> None:
    world, content = two(), made_elsewhere()
    there = listing(world, content)
    copies = {copy: msgspec.structs.replace(summary, merkle_root="other") for copy, summary in there.copies.items()}
    swapped = Listing(repository=there.repository, copies=copies, images=there.images, since=there.since)
    assert status(world, swapped) == "damaged"
    assert look(world, swapped) == []


def test_what_an_operation_works_on_or_has_changed_since_is_left_for_the_next_look() -> None:
    world = two()
    content = saved(world)
    before = listing(world, content)
    forget = world.send(cmd.SiteForgetImage(by=BY, content=content), content.image)
    assert isinstance(forget, str)
    assert look(world, before, listing(world, name="vault")) == [], "it is being forgotten"
    assert world.run(forget, good).state == "succeeded"
    assert look(world, before) == [], "the listing is older than its removal"
    assert finding.missing(world.site, [before]) == []


def test_copies_that_are_gone_are_lost_when_two_looks_miss_them_and_found_when_they_come_back() -> None:
    world = two()
    content = saved(world)
    empty = listing(world)
    assert look(world, empty) == [], "one look is no proof"
    missed = set(finding.missing(world.site, [empty]))
    assert {copy for copy, _ in missed} == {part.copy for part in finding.parts_of(content)}
    drafts = finding.facts(world.site, [empty], trusted={OWN}, missed=missed)
    world.tell(*drafts)
    assert {type(draft.event) for draft in drafts} == {ev.LocationLost}
    assert not world.site.locations
    refused = world.send(cmd.SiteRunImage(by=BY, name="back", content=content), new_id())
    assert isinstance(refused, Problem)
    back = look(world, listing(world, content))
    assert {type(draft.event) for draft in back} == {ev.LocationAdded}, "the image itself is on record"
    assert isinstance(world.send(cmd.SiteRunImage(by=BY, name="back", content=content), new_id()), str)


def test_a_repository_that_does_not_answer_loses_nothing() -> None:
    world = two()
    content = saved(world, policy=VAULT)
    missed = finding.missing(world.site, [listing(world)])
    assert {where for _, where in missed} == {"filesystem"}
    assert len(missed) == 1
    assert len(list(finding.parts_of(content))) == 2


@pytest.mark.parametrize("failing", ["image", "copies"])
def test_copies_that_no_image_names_are_counted_and_not_taken(failing: str) -> None:
    world, content = two(), made_elsewhere()
    there = listing(world, content)
    bare = Listing(
        repository="filesystem",
        copies=there.copies if failing == "image" else {},
        images={} if failing == "image" else there.images,
        since=there.since,
    )
    assert look(world, bare) == []
    assert finding.loose(bare) == (2 if failing == "image" else 0)
