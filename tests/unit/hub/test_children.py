"""The hub's sagas: what is sent to sites, and how the operation goes on from what comes of it."""

from __future__ import annotations

import pytest

from hub.domain.children import Child, Clockwork, advance, operation_of, outgoing
from hub.domain.grants import check_grant
from hub.domain.images import Across, ImageFacts, plan_delete, plan_run
from schemas import events as ev
from schemas import saga
from schemas.commands import RunImage, SiteCancelOperation, SiteForgetImage, SiteRunImage, SiteTransferImage
from schemas.events import Event
from schemas.problems import Actor, conflict, not_found, permanent, temporary
from schemas.queries import AskGrant
from schemas.saga import Operation
from tests.unit.hub.scenes import BY, content

RUN = RunImage(instance="i2", name="two", site="south")
PROBLEM = permanent("no_space", "full")


class Story:
    """An operation, and what the sites have told of its children."""

    def __init__(self, accepted: ev.OperationAccepted, id: str = "op") -> None:
        self.id = id
        self.events: list[Event] = saga.accept(accepted)
        self.children: dict[str, Child] = {}
        self.now = 0.0
        self.changed: dict[str, float] = {}

    @property
    def operation(self) -> Operation:
        operation = saga.fold(self.id, self.events)
        assert operation is not None
        return operation

    def child(self, _site: str, id: str) -> Child | None:
        return self.children.get(id)

    @property
    def clock(self) -> Clockwork:
        return Clockwork(now=self.now, accepted=0.0, changed=self.changed)

    def go_on(self) -> list[Event]:
        """Store all that follows now; returns it."""
        new: list[Event] = []
        while events := advance(self.operation, self.child, clock=self.clock):
            for event in events:
                if step := getattr(event, "step", None):
                    self.changed[step] = self.now
            self.events += events
            new += events
        return new

    def sent(self) -> list[str]:
        return [each.id for each in outgoing(self.operation, self.child, clock=self.clock)]


@pytest.fixture
def run() -> Story:
    return Story(plan_run(RUN, image="img", way=Across(content(), "north"), by=BY))


def test_first_the_transfer_then_the_run(run: Story) -> None:
    (transfer,) = outgoing(run.operation, run.child, clock=run.clock)
    assert (transfer.id, transfer.site, transfer.aggregate_id) == ("op/transfer-south/1", "south", "img")
    assert transfer.command == SiteTransferImage(by=BY, parent="op", content=content(), source="north")
    run.children[transfer.id] = Child("running")
    assert run.sent() == []
    assert run.go_on() == []
    run.children[transfer.id] = Child("succeeded")
    run.go_on()
    (deploy,) = outgoing(run.operation, run.child, clock=run.clock)
    assert (deploy.id, deploy.site, deploy.aggregate_id) == ("op/run-south/1", "south", "i2")
    assert deploy.command == SiteRunImage(by=BY, parent="op", name="two", content=content())
    run.children[deploy.id] = Child("succeeded")
    assert run.go_on()[-1] == ev.OperationSucceeded()
    assert run.sent() == []


def test_a_failed_child_fails_the_operation_for_good(run: Story) -> None:
    run.children["op/transfer-south/1"] = Child("failed", temporary("timeout", "slow"))
    run.go_on()
    assert run.operation.outcome == "failed"
    assert run.operation.problem is not None
    assert (run.operation.problem.code, run.operation.problem.actor) == ("timeout", Actor.BROKER)


def test_a_transfer_that_finds_the_image_busy_waits_its_turn(run: Story) -> None:
    run.children["op/transfer-south/1"] = Child("rejected", conflict("image", "busy"))
    (failed,) = run.go_on()
    assert isinstance(failed, ev.StepFailed)
    assert not failed.final
    assert run.sent() == []
    run.now = 60.0
    assert run.go_on() == [ev.StepStarted(step="transfer-south", attempt=2)]
    assert run.sent() == ["op/transfer-south/2"]


def test_a_rejected_run_fails_without_undoing_what_never_was(run: Story) -> None:
    run.children["op/transfer-south/1"] = Child("succeeded")
    run.go_on()
    run.children["op/run-south/1"] = Child("rejected", PROBLEM)
    run.go_on()
    assert (run.operation.outcome, run.operation.problem, run.operation.cleanup) == ("failed", PROBLEM, "done")


def cancelled_while_running(run: Story) -> None:
    run.children["op/transfer-south/1"] = Child("succeeded")
    run.go_on()
    run.children["op/run-south/1"] = Child("running")
    run.events += saga.cancel(run.operation, BY)


def test_a_cancel_waits_for_the_end_of_the_child(run: Story) -> None:
    cancelled_while_running(run)
    (sent,) = outgoing(run.operation, run.child, clock=run.clock)
    assert (sent.id, sent.aggregate_id) == ("op/cancel-run-south/1", "op/run-south/1")
    assert isinstance(sent.command, SiteCancelOperation)
    run.children[sent.id] = Child("succeeded")
    assert run.go_on() == []
    assert run.operation.outcome is None
    run.children["op/run-south/1"] = Child("cancelled")
    run.go_on()
    assert run.operation.outcome == "cancelled"


def test_a_child_that_succeeded_in_spite_of_the_cancel_is_removed(run: Story) -> None:
    cancelled_while_running(run)
    run.children["op/run-south/1"] = Child("succeeded")
    assert run.go_on() == []
    assert run.sent() == ["op/remove-run-south/1"]
    run.children["op/remove-run-south/1"] = Child("failed", PROBLEM)
    assert run.go_on() == [ev.StepUndoFailed(step="run-south", attempt=1, problem=PROBLEM)]
    run.now = 60.0
    assert run.sent() == ["op/remove-run-south/2"]
    run.children["op/remove-run-south/2"] = Child("succeeded")
    run.go_on()
    assert (run.operation.outcome, run.operation.cleanup) == ("cancelled", "done")


def test_a_child_that_its_site_never_heard_of_needs_no_end(run: Story) -> None:
    cancelled_while_running(run)
    del run.children["op/run-south/1"]
    run.children["op/cancel-run-south/1"] = Child("rejected", not_found("operation", "unknown"))
    run.go_on()
    assert run.operation.outcome == "cancelled"


def test_a_transfer_under_way_is_cancelled_too(run: Story) -> None:
    run.children["op/transfer-south/1"] = Child("running")
    run.events += saga.cancel(run.operation, BY)
    assert run.operation.outcome == "cancelled"
    assert run.sent() == ["op/cancel-transfer-south/1"]
    run.children["op/transfer-south/1"] = Child("cancelled")
    assert run.sent() == []


def test_an_operation_that_takes_too_long_goes_back(run: Story) -> None:
    run.now = run.operation.accepted.deadline_seconds + 1
    run.go_on()
    assert run.operation.outcome == "failed"
    assert run.operation.problem is not None
    assert run.operation.problem.code == "deadline"


def test_forgetting_is_put_off_never_given_up() -> None:
    image = ImageFacts("img", "golden", "saved", content(), {"c1": frozenset({"north", "south"})})
    story = Story(plan_delete(image, by=BY))
    north, south = outgoing(story.operation, story.child, clock=story.clock)
    assert north.command == SiteForgetImage(by=BY, parent="op", content=content())
    story.children[north.id] = Child("succeeded")
    for attempt in range(1, 50):
        story.children[f"op/forget-south/{attempt}"] = Child("failed", PROBLEM)
        story.go_on()
        story.now += 60.0
        story.go_on()
        assert story.sent() == [f"op/forget-south/{attempt + 1}"]
    story.children["op/forget-south/50"] = Child("rejected", not_found("image", "not here"))
    story.go_on()
    assert story.operation.outcome == "succeeded"
    assert south.id == "op/forget-south/1"


def test_the_operation_of_an_effect() -> None:
    assert operation_of("op/transfer-south/1") == "op"
    assert operation_of("0190-abc") is None
    assert operation_of("a/b/c") is None


def test_a_grant_belongs_to_a_transfer_under_way(run: Story) -> None:
    question = AskGrant(copy="c1", source="north", operation="op")
    assert check_grant(question, run.operation, asking="south") is None
    assert check_grant(question, run.operation, asking="north") is not None
    assert check_grant(question, None, asking="south") is not None
    run.children["op/transfer-south/1"] = Child("succeeded")
    run.go_on()
    assert check_grant(question, run.operation, asking="south") is not None
