"""A site with several copy repositories: which one a copy goes into, and what is done about each place it lies in."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import commands as cmd
from schemas import events as ev
from schemas.ids import new_id
from schemas.problems import Problem, permanent
from schemas.values import ImageContent
from site_agent.domain import plans
from site_agent.domain.decide import decide
from site_agent.domain.repositories import Item, Policy, Rule, placed_at
from site_agent.domain.site import Draft
from site_agent.settings import RepositorySection
from tests.unit.site_agent.world import BY, World, deployed, good

VAULT = Policy(rules=(Rule(types=("objectstore",), repository="vault"),))


def two() -> World:
    """``north`` with the repositories ``filesystem`` and, registered later, ``vault``."""
    world = World()
    vault = ev.BrokerRegistered(kind="crb", name="vault", version="1", types=("vault",))
    world.tell(Draft("broker", "crb-vault", vault))
    return world


def save(world: World, instance: str, *, repository: str | None = None, policy: Policy = Policy()) -> str | Problem:
    copies = {"db": new_id(), "files": new_id()}
    command = cmd.SiteSaveInstance(by=BY, image=new_id(), copies=copies, repository=repository)
    return world.send(command, instance, policy=policy)


def saved(world: World, *, repository: str | None = None, policy: Policy = Policy()) -> ImageContent:
    operation = save(world, deployed(world, name=f"app-{len(world.events)}"), repository=repository, policy=policy)
    assert isinstance(operation, str)
    assert world.run(operation, good).state == "succeeded"
    content = world.site.images[world.site.operations[operation].accepted.request["image"]].content
    assert content is not None
    return content


def places(world: World, content: ImageContent) -> dict[str, list[str]]:
    return {part.data_service: world.site.holders(part.copy) for part in content.instances[0].parts}


def test_without_a_policy_copies_go_where_the_site_registered_first() -> None:
    world = two()
    earlier = ev.BrokerRegistered(kind="crb", name="attic", version="1", types=("attic",))
    world.tell(Draft("broker", "crb-attic", earlier))
    assert places(world, saved(world)) == {"db": ["filesystem"], "files": ["filesystem"]}
    world.tell(Draft("broker", "crb-filesystem", ev.BrokerLost(kind="crb", name="filesystem")))
    assert places(world, saved(world)) == {"db": ["vault"], "files": ["vault"]}
    world.tell(Draft("broker", "crb-filesystem", ev.BrokerRegistered(kind="crb", name="filesystem", version="2")))
    assert places(world, saved(world)) == {"db": ["filesystem"], "files": ["filesystem"]}


def test_each_data_service_is_placed_by_the_first_rule_that_fits_it() -> None:
    world = two()
    content = saved(world, policy=VAULT)
    assert places(world, content) == {"db": ["filesystem"], "files": ["vault"]}
    committed = {one.event.repository for one in world.events if isinstance(one.event, ev.CopyCommitted)}
    assert committed == {"north/filesystem", "north/vault"}


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (Rule(repository="r"), True),
        (Rule(repository="r", data_classes=("personal",), types=("database",)), True),
        (Rule(repository="r", data_classes=("public",), types=("database",)), False),
        (Rule(repository="r", apps=("shop-*",), templates=("shop",), data_services=("d?",)), True),
        (Rule(repository="r", apps=("blog", "shop")), False),
        (Rule(repository="r", at_least_bytes=100, below_bytes=101), True),
        (Rule(repository="r", at_least_bytes=101), False),
        (Rule(repository="r", below_bytes=100), False),
    ],
)
def test_a_rule_fits_when_all_that_it_says_holds(rule: Rule, fits: bool) -> None:
    item = Item("shop-1", "shop", "db", "database", "personal", 100)
    assert rule.fits(item) is fits


def test_a_rule_about_sizes_fits_nothing_whose_size_is_unknown() -> None:
    item = Item("shop", "shop", "db", "database", "personal")
    assert not Rule(repository="r", below_bytes=10**12).fits(item)
    assert not Rule(repository="r", at_least_bytes=0).fits(item)


def test_the_last_copy_of_a_data_service_is_the_estimate_of_its_next() -> None:
    world = two()
    policy = Policy(rules=(Rule(at_least_bytes=10, repository="vault"),))
    instance = deployed(world)
    for expected in ("filesystem", "vault"):
        operation = save(world, instance, policy=policy)
        assert isinstance(operation, str)
        world.run(operation, good)
        assert placed_at(world.site.operations[operation].accepted.request, "db") == expected


def test_a_command_chooses_over_the_policy_and_an_unknown_name_is_answered_with_those_there() -> None:
    world = two()
    assert places(world, saved(world, repository="filesystem", policy=VAULT)) == {
        "db": ["filesystem"],
        "files": ["filesystem"],
    }
    problem = save(world, deployed(world), repository="cellar")
    assert isinstance(problem, Problem)
    assert (problem.code, problem.field) == ("not_found", "repository")
    assert "filesystem, vault" in problem.sentence()


def test_a_policy_that_names_a_repository_that_is_away_says_so_and_puts_nothing_elsewhere() -> None:
    world = two()
    world.tell(Draft("broker", "crb-vault", ev.BrokerLost(kind="crb", name="vault")))
    problem = save(world, deployed(world), policy=VAULT)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.field) == ("conflict", "repository")
    assert "'vault'" in problem.message
    assert "--repository: filesystem" in problem.sentence()
    named = save(world, deployed(world, name="other"), repository="vault")
    assert isinstance(named, Problem)
    assert "does not answer" in named.message


def test_a_transfer_within_a_site_adds_a_place_and_forgetting_empties_both() -> None:
    world = two()
    content = saved(world)
    transfer = cmd.SiteTransferImage(by=BY, content=content, source="north", repository="vault")
    operation = world.send(transfer, content.image)
    assert isinstance(operation, str)
    assert world.run(operation, good).state == "succeeded"
    assert places(world, content) == {"db": ["filesystem", "vault"], "files": ["filesystem", "vault"]}
    world.tell(Draft("broker", "crb-filesystem", ev.BrokerLost(kind="crb", name="filesystem")))
    assert places(world, content)["db"] == ["vault", "filesystem"], "one that answers is read first"
    forget = world.send(cmd.SiteForgetImage(by=BY, content=content), content.image)
    assert isinstance(forget, str)
    assert world.run(forget, good).state == "succeeded"
    assert places(world, content) == {"db": [], "files": []}
    assert not world.site.locations


def test_a_transfer_within_a_site_that_fails_takes_back_only_what_it_made() -> None:
    world = two()
    content = saved(world)
    operation = world.send(
        cmd.SiteTransferImage(by=BY, content=content, source="north", repository="vault"), content.image
    )
    assert isinstance(operation, str)

    def failing(action: str, part: str) -> dict[str, Any] | Problem:
        return permanent("broken", "it is broken") if action == plans.RECORD else good(action, part)

    assert world.run(operation, failing).state == "failed"
    assert places(world, content) == {"db": ["filesystem"], "files": ["filesystem"]}
    assert world.site.operations[operation].accepted.request["holding"] == ["filesystem"]


def test_a_transfer_that_was_accepted_before_there_were_several_goes_on() -> None:
    world = two()
    content = saved(world)
    decided = decide(
        world.site, cmd.SiteTransferImage(by=BY, content=content, source="north"), id="t", target=content.image
    )
    assert not isinstance(decided, Problem)
    accepted = next(one.event for one in decided if isinstance(one.event, ev.OperationAccepted))
    assert placed_at({"repository": "filesystem"}, "db") == "filesystem"
    assert [step.action for step in accepted.steps] == [plans.RECORD]


def test_settings_become_the_policy() -> None:
    section = RepositorySection.model_validate(
        {"rules": [{"data_classes": ["personal"], "at_least_bytes": 5, "repository": "vault"}], "default": "main"}
    )
    rule = Rule(data_classes=("personal",), at_least_bytes=5, repository="vault")
    assert section.policy() == Policy(rules=(rule,), default="main")
