"""Masked saves and sites that take masked images only: what is refused, what a save does, what an image says of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas import commands as cmd
from schemas import events as ev
from schemas.ids import new_id
from schemas.masking import Masked, Masking, MaskingRule, rules_digest
from schemas.problems import Problem, permanent
from schemas.values import ImageContent
from site_agent.domain import plans
from site_agent.domain.site import Draft
from tests.unit.site_agent.world import BY, TEMPLATE, World, deployed, good

RULES = Masking(columns=(MaskingRule(column="users.*", transformer="hash"),))
KEPT = Masking(keep=True)
BOTH = {"db": RULES, "files": KEPT}


def world_that_masks() -> World:
    world = World()
    known = world.site.brokers["dsb-postgres"]
    world.tell(Draft("broker", "dsb-postgres", msgspec.structs.replace(known, can_mask=True)))
    return world


def save(world: World, instance: str, masking: dict[str, Masking], *, masked: bool = True) -> str | Problem:
    copies = {"db": new_id(), "files": new_id()}
    command = cmd.SiteSaveInstance(by=BY, image=new_id(), copies=copies, masked=masked, masking=masking)
    return world.send(command, instance)


def masking_brokers(action: str, part: str) -> dict[str, Any] | Problem:
    answer = good(action, part)
    if action == plans.COPY and isinstance(answer, dict):
        rules = BOTH[part]
        return {**answer, "masked": {"rules": rules_digest(rules), "columns": 3, "keep": rules.keep}}
    return answer


def saved(world: World, instance: str, *, masked: bool = True) -> ImageContent:
    operation = save(world, instance, BOTH if masked else {}, masked=masked)
    assert isinstance(operation, str), operation
    ended = world.run(operation, masking_brokers if masked else good)
    assert ended.state == "succeeded", ended
    content = world.site.images[ended.accepted.request["image"]].content
    assert content is not None
    return content


@pytest.mark.parametrize(
    ("masking", "masked", "field", "said"),
    [
        ({}, True, "masking.db", "no rule says how data service 'db' is masked"),
        ({"db": RULES}, True, "masking.files", "no rule says"),
        ({"db": RULES, "files": RULES}, True, "masking.files", "broker 's3' of data service 'files' can't mask"),
        ({**BOTH, "mail": KEPT}, True, "masking.mail", "there is no data service 'mail'"),
        (BOTH, False, "masking", "not to be masked"),
        ({"db": Masking(), "files": KEPT}, True, "masking.db", "it says nothing"),
    ],
)
def test_a_masked_save_that_would_let_something_through_is_rejected(
    masking: dict[str, Masking], masked: bool, field: str, said: str
) -> None:
    world = world_that_masks()
    answer = save(world, deployed(world), masking, masked=masked)
    assert isinstance(answer, Problem)
    assert answer.field == field
    assert said in answer.message
    assert answer.remedy


def test_a_masked_save_of_a_plan_that_cannot_be_masked_is_rejected() -> None:
    world = world_that_masks()
    known = world.site.brokers["dsb-postgres"]
    plans_there = tuple(msgspec.structs.replace(plan, can_mask=False) for plan in known.plans)
    world.tell(Draft("broker", "dsb-postgres", msgspec.structs.replace(known, plans=plans_there)))
    instance = deployed(world)
    answer = save(world, instance, BOTH)
    assert isinstance(answer, Problem)
    assert (answer.field, answer.code) == ("masking.db", "conflict")
    assert "has the plan 'small', whose copies can't be masked" in answer.message
    assert isinstance(save(world, instance, {"db": KEPT, "files": KEPT}), str)


def test_the_rules_of_the_template_are_used_when_the_command_has_none() -> None:
    world = world_that_masks()
    services = {
        name: msgspec.structs.replace(spec, masking=BOTH[name]) for name, spec in TEMPLATE.data_services.items()
    }
    template = msgspec.structs.replace(TEMPLATE, data_services=services)
    operation = save(world, deployed(world, template=template), {})
    assert isinstance(operation, str)
    request = world.site.operations[operation].accepted.request
    assert msgspec.convert(request["masking"], dict[str, Masking]) == BOTH


def test_a_key_is_made_before_the_copies_and_dropped_behind_them() -> None:
    world = world_that_masks()
    saved(world, deployed(world))
    done = [(action, part) for kind, action, part in world.performed if kind == "do"]
    made, dropped = done.index((plans.MAKE_KEY, "image")), done.index((plans.DROP_KEY, "image"))
    copies = [done.index((plans.COPY, name)) for name in ("db", "files")]
    assert made < min(copies)
    assert dropped > max(copies)


def test_a_masked_save_that_fails_drops_its_key() -> None:
    world = world_that_masks()
    operation = save(world, deployed(world), BOTH)
    assert isinstance(operation, str)

    def failing(action: str, part: str) -> dict[str, Any] | Problem:
        return permanent("not_masked", "no") if (action, part) == (plans.COPY, "db") else masking_brokers(action, part)

    assert world.run(operation, failing).state == "failed"
    assert ("undo", plans.DROP_KEY, "image") in world.performed


def test_a_save_that_is_not_masked_has_no_key_and_its_image_says_so() -> None:
    world = world_that_masks()
    content = saved(world, deployed(world), masked=False)
    assert not content.masked
    assert not {action for _, action, _ in world.performed} & {plans.MAKE_KEY, plans.DROP_KEY}


def test_an_image_says_by_which_rules_each_part_was_masked() -> None:
    world = world_that_masks()
    content = saved(world, deployed(world))
    assert content.masked
    parts = {part.data_service: part.masked for part in content.instances[0].parts}
    assert parts["db"] is not None
    assert parts["db"].rules == rules_digest(RULES)
    assert parts["db"].columns == 3
    assert parts["files"] is not None
    assert parts["files"].keep


def test_a_site_that_takes_masked_images_refuses_others_at_run_and_transfer() -> None:
    world = world_that_masks()
    instance = deployed(world)
    masked, plain = saved(world, instance), saved(world, instance, masked=False)
    world.site.images_accepted = "masked"
    for number, content in enumerate((masked, plain)):
        run = cmd.SiteRunImage(by=BY, name=f"again-{number}", content=content)
        transfer = cmd.SiteTransferImage(by=BY, content=content, source="south")
        answers = [world.send(run, new_id()), world.send(transfer, content.image)]
        if content is masked:
            assert all(isinstance(answer, str) for answer in answers), answers
            continue
        for answer in answers:
            assert isinstance(answer, Problem)
            assert answer.field == "data_services.db"
            assert "takes masked images only" in answer.message
            assert "--masked" in (answer.remedy or "")


def test_rows_that_were_left_out_are_not_what_a_site_that_takes_masked_images_asks_for() -> None:
    world = world_that_masks()
    content = saved(world, deployed(world))
    instance = content.instances[0]
    thinned = Masked(rules="0" * 64, subset=True, rows_left_out=90)

    def with_db(masked: Masked) -> ImageContent:
        parts = tuple(
            msgspec.structs.replace(part, masked=masked) if part.data_service == "db" else part
            for part in instance.parts
        )
        return msgspec.structs.replace(content, instances=(msgspec.structs.replace(instance, parts=parts),))

    world.site.images_accepted = "masked"
    refused = world.send(cmd.SiteRunImage(by=BY, name="again", content=with_db(thinned)), new_id())
    assert isinstance(refused, Problem)
    assert refused.field == "data_services.db"
    assert "no column was masked" in refused.message
    both = msgspec.structs.replace(thinned, columns=3)
    assert isinstance(world.send(cmd.SiteRunImage(by=BY, name="both", content=with_db(both)), new_id()), str)


def test_a_site_says_which_images_it_takes() -> None:
    assert ev.SiteAnnounced(version="1", seal_key="0").images == "any"
