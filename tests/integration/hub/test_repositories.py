"""What sites find in their repositories, in the hub's catalog; images that are brought to a site ahead of their use."""

from __future__ import annotations

import msgspec
import pytest

from schemas import events as ev
from schemas.commands import (
    DeleteImage,
    EditImage,
    ImportRepository,
    RunImage,
    SaveInstance,
    SiteImportRepository,
    SiteTransferImage,
    TransferImage,
)
from schemas.ids import new_id
from schemas.names import repository_token
from schemas.repositories import RepositoriesQuery, RepositoriesView
from tests.integration.hub.conftest import SHOP, Client, until
from tests.integration.hub.fakes import FakeSite, Handled, content_of, location
from tests.integration.hub.test_operations import Sites, online, prepared

KEY = "a" * 64


async def finds(site: FakeSite, *, copies: dict[str, str] | None = None, saved_at: str = "2026-11-20T10:00:00Z") -> str:
    """The site comes upon an image of a site that nobody here has heard of."""
    image = new_id()
    held = copies or {"db": new_id(), "docs": new_id()}
    content = msgspec.structs.replace(content_of(image, "elsewhere", "i-old", SHOP, held), saved_at=saved_at)
    found = ev.ImageFound(content=content, repository=f"{site.name}/main", signer=KEY)
    places = [location(site.name, copy=copy, image=image) for copy in held.values()]
    await site.write(("image", image, found), *places)
    return image


async def listed(client: Client, image: str) -> None:
    async def there() -> bool:
        return bool(await client.images(image))

    await until(there, what=f"image {image} is in the catalog")


@pytest.mark.usefixtures("running_hub")
async def test_what_a_site_finds_is_named_after_its_app_and_day_and_runs(client: Client, sites: Sites) -> None:
    image = await finds(sites["north"])
    await listed(client, image)
    view = await client.image(image)
    assert (view.name, view.state, view.origin, view.site) == ("shop-2026-11-20", "saved", "found", "north")
    assert (view.found_in, view.signer, view.sites) == ("north/main", KEY, ("north",))
    await online(client)
    answer = await client.ask(RunImage(instance=new_id(), name="back", site="south"), image)
    assert (await client.ended(answer.command)).state == "succeeded"
    assert (await client.image(image)).sites == ("north", "south")


@pytest.mark.usefixtures("running_hub")
async def test_a_name_that_is_taken_gets_a_number_and_one_image_one_entry(client: Client, sites: Sites) -> None:
    first = await finds(sites["north"])
    await listed(client, first)
    second = await finds(sites["south"])
    await listed(client, second)
    assert (await client.image(second)).name == "shop-2026-11-20-2"
    # the other site sees the same repository
    content = msgspec.structs.replace(
        content_of(second, "elsewhere", "i-old", SHOP, {"db": new_id()}), saved_at="2026-11-20T10:00:00Z"
    )
    await sites["north"].write(("image", second, ev.ImageFound(content=content, repository="north/main", signer=KEY)))
    third = await finds(sites["north"])
    await listed(client, third)
    assert (await client.image(third)).name == "shop-2026-11-20-3"
    assert (await client.image(second)).site == "south"


@pytest.mark.usefixtures("running_hub")
async def test_a_found_image_is_deleted_where_it_lies_and_again_where_it_turns_up(client: Client, sites: Sites) -> None:
    await online(client)
    image = await finds(sites["north"])
    await listed(client, image)
    copy = (await client.image(image)).parts[0].copy
    answer = await client.ask(DeleteImage(), image)
    assert (await client.ended(answer.command)).state == "succeeded"
    assert sites["north"].verbs() == ["forget"]
    await sites["south"].write(location("south", copy=copy, image=image))
    await until(lambda: sites["south"].verbs() == ["forget"], what="south forgets it, too")


@pytest.mark.usefixtures("running_hub")
async def test_an_image_that_the_hub_saved_keeps_its_entry_when_it_is_found(client: Client, sites: Sites) -> None:
    _, image = await prepared(client)
    before = await client.image(image)
    content = content_of(image, "north", "i", SHOP, {part.data_service: part.copy for part in before.parts})
    await sites["south"].write(
        ("image", image, ev.ImageFound(content=content, repository="south/main", signer=KEY)),
        *(location("south", copy=part.copy, image=image) for part in before.parts),
    )

    async def there() -> bool:
        return (await client.image(image)).sites == ("north", "south")

    await until(there, what="it is known to lie at south too")
    after = await client.image(image)
    assert (after.name, after.origin, after.site, after.found_in) == (before.name, "saved", "north", "")


@pytest.mark.usefixtures("running_hub")
async def test_a_copy_that_is_lost_is_not_listed_and_keeps_its_image_from_running(client: Client, sites: Sites) -> None:
    image = await finds(sites["north"])
    await listed(client, image)
    for part in (await client.image(image)).parts:
        aggregate, id, _ = location("north", copy=part.copy, image=image)
        await sites["north"].write((aggregate, id, ev.LocationLost(copy=part.copy, repository="north/main")))

    async def gone() -> bool:
        return (await client.image(image)).sites == ()

    await until(gone, what="it lies nowhere")
    answer = await client.ask(RunImage(instance=new_id(), name="back", site="north"), image)
    assert answer.problem is not None
    assert "no site holds all copies" in answer.problem.message


@pytest.mark.usefixtures("running_hub")
async def test_an_image_is_brought_to_a_site_or_into_a_repository_of_it(client: Client, sites: Sites) -> None:
    instance, image = await prepared(client)
    await online(client)
    answer = await client.ask(TransferImage(site="south", repository="vault"), image)
    view = await client.ended(answer.command)
    assert (view.kind, view.state, [step.step.id for step in view.steps]) == (
        "transfer",
        "succeeded",
        ["transfer-south"],
    )
    [came] = sites["south"].came
    assert isinstance(came.command, SiteTransferImage)
    assert (came.command.source, came.command.repository) == ("north", "vault")
    within = await client.ask(TransferImage(site="north", repository="vault"), image)
    assert within.site == "north"
    last = sites["north"].came[-1].command
    assert isinstance(last, SiteTransferImage)
    assert (last.source, last.repository) == ("north", "vault")
    other = new_id()
    assert (await client.ask(SaveInstance(image=other, name="other", repository="vault"), instance)).state == "accepted"
    nowhere = await client.ask(TransferImage(site="west"), image)
    assert nowhere.problem is not None
    assert nowhere.problem.field == "site"


@pytest.mark.usefixtures("running_hub")
async def test_what_is_asked_of_a_repository_goes_to_its_site_and_repositories_are_listed_with_what_lies_there(
    client: Client, sites: Sites
) -> None:
    async def imports(handled: Handled) -> None:
        await handled.accept()
        await handled.succeed()

    sites["north"].scripts["import"] = imports
    answer = await client.ask(ImportRepository(trust=(KEY,)), repository_token("north", "main"))
    assert answer.site == "north"
    command = sites["north"].came[-1].command
    assert isinstance(command, SiteImportRepository)
    assert (command.trust, command.by.principal) == ((KEY,), "alice")
    for nonsense in ("main", repository_token("west", "main")):
        refused = await client.ask(ImportRepository(), nonsense)
        assert refused.state == "rejected"

    crb = ev.BrokerRegistered(kind="crb", name="main", version="1", signing_key=KEY)
    await sites["north"].write(("broker", "crb-main", crb))
    image = await finds(sites["north"])
    await listed(client, image)

    async def known() -> bool:
        return bool((await client.query("repositories", RepositoriesQuery(), RepositoriesView)).repositories)

    await until(known, what="the repository is known")
    [view] = (await client.query("repositories", RepositoriesQuery(site="north"), RepositoriesView)).repositories
    assert (view.name, view.state, view.copies, view.images, view.signing_key) == (
        "main",
        "registered",
        2,
        ("shop-2026-11-20",),
        KEY,
    )


@pytest.mark.usefixtures("running_hub")
async def test_a_found_image_gets_the_name_the_tags_and_the_comment_that_people_want(
    client: Client, sites: Sites
) -> None:
    first, second = await finds(sites["north"]), await finds(sites["south"])
    await listed(client, first)
    await listed(client, second)
    name = (await client.image(first)).name
    edit = EditImage(name="golden", tags=("bug-12",), comment="from the old disk")
    assert (await client.ask(edit, first)).state == "accepted"
    view = await client.image(first)
    assert (view.name, view.tags, view.comment, view.origin) == ("golden", ("bug-12",), "from the old disk", "found")
    taken = await client.ask(EditImage(name="golden"), second)
    assert taken.problem is not None
    assert (taken.problem.code, taken.problem.field) == ("conflict", "name")
    assert first in taken.problem.message
    assert (await client.ask(EditImage(name=name), second)).state == "accepted", "the name that was given up is free"
    assert (await client.ask(EditImage(tags=()), first)).state == "accepted"
    view = await client.image(first)
    assert (view.name, view.tags, view.comment) == ("golden", (), "from the old disk")
    for nonsense in (EditImage(), EditImage(name="No Name"), EditImage(tags=("no tag",))):
        assert (await client.ask(nonsense, first)).state == "rejected"
