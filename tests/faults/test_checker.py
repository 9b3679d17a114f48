"""The checker finds what it is there to find: histories with a defect each."""

from __future__ import annotations

import msgspec
import pytest

from bus.events import Recorded
from schemas import events as ev
from schemas.envelope import wrap
from schemas.operations import Step
from schemas.problems import permanent
from schemas.values import (
    CopySummary,
    ImageContent,
    ImageInstance,
    ImagePart,
    InstanceConfiguration,
    Requester,
    Template,
)
from tests.faults.checker import complaints_about
from tests.faults.fold import Fold

BY = Requester(principal="admin")
PROBLEM = permanent("broken", "it broke")
ACCEPTED = ev.OperationAccepted(
    kind="save", target="i", name="app", by=BY, steps=(Step(id="copy-rows", action="copy", part="rows"),)
)
PART = ImagePart(
    data_service="rows", type="database", broker="postgres", plan="small", copy="c", copy_format="x", level="crash"
)
CONTENT = ImageContent(
    image="m",
    site="north",
    level="crash",
    instances=(
        ImageInstance(
            instance="i",
            instance_name="app",
            configuration=InstanceConfiguration(template=Template(name="t", version="1")),
            parts=(PART,),
        ),
    ),
)
SUMMARY = CopySummary(copy="c", merkle_root="r", manifest_digest="d", size=1, stored=1)
SOUND: list[tuple[str, str, str, ev.Event]] = [
    ("hub", "catalog", "m", ev.CatalogEntered(name="image", site="north", instance="i", by=BY)),
    ("north", "operation", "o", ACCEPTED),
    ("north", "image", "m", ev.ImageSaving(instance="i", instance_name="app", template="t@1", copies={"rows": "c"})),
    ("north", "copy", "c", ev.CopyPreparing(instance="i", data_service="rows", image="m", broker="postgres")),
    ("north", "operation", "o", ev.StepStarted(step="copy-rows", attempt=1)),
    ("north", "copy", "c", ev.CopyCommitted(repository="north/filesystem", summary=SUMMARY)),
    ("north", "location", "c@n", ev.LocationAdded(copy="c", repository="north/filesystem", image="m")),
    ("north", "operation", "o", ev.StepSucceeded(step="copy-rows", attempt=1)),
    ("north", "operation", "o", ev.OperationSucceeded()),
    ("north", "image", "m", ev.ImageSaved(content=CONTENT)),
]


def complaints(history: list[tuple[str, str, str, ev.Event]]) -> list[str]:
    events = [
        Recorded(
            sequence=number,
            writer=writer,
            aggregate=aggregate,
            id=id,
            event=event,
            envelope=wrap(event, id=str(number), source=writer, time="2026-01-01T00:00:00Z"),
        )
        for number, (writer, aggregate, id, event) in enumerate(history, 1)
    ]
    return complaints_about(Fold.of(events))


def test_sound_history_has_no_complaint() -> None:
    assert complaints(SOUND) == []


@pytest.mark.parametrize("lost", ["CopyCommitted", "LocationAdded", "OperationSucceeded", "CatalogEntered"])
def test_lost_event_is_found(lost: str) -> None:
    assert complaints([each for each in SOUND if type(each[3]).__name__ != lost])


@pytest.mark.parametrize("doubled", ["OperationAccepted", "StepSucceeded", "OperationSucceeded", "CopyCommitted"])
def test_doubled_event_is_found(doubled: str) -> None:
    history = []
    for each in SOUND:
        history += [each, each] if type(each[3]).__name__ == doubled else [each]
    assert complaints(history)


def test_failed_save_that_left_its_copy_is_found() -> None:
    failed = [each for each in SOUND if type(each[3]).__name__ not in ("OperationSucceeded", "ImageSaved")]
    failed += [
        ("north", "operation", "o", ev.OperationFailed(problem=PROBLEM, cleanup="done")),
        ("north", "image", "m", ev.ImageFailed(problem=PROBLEM)),
        ("hub", "catalog", "m", ev.CatalogWithdrawn()),
    ]
    assert complaints(failed)
    failed += [
        ("north", "location", "c@n", ev.LocationRemoved(copy="c", repository="north/filesystem")),
        ("north", "copy", "c", ev.CopyFailed(problem=PROBLEM)),
    ]
    assert complaints(failed) == []


def test_pending_clean_up_is_found() -> None:
    history = [each for each in SOUND if each[1] == "operation"][:-1]
    ended = ev.OperationFailed(problem=PROBLEM, cleanup="pending")
    assert complaints([*history, ("north", "operation", "o", ended)])
    done = msgspec.structs.replace(ended, cleanup="done")
    assert complaints([*history, ("north", "operation", "o", done)]) == []


def test_instance_that_nothing_works_on_is_found() -> None:
    template = Template(name="t", version="1")
    deploying = ev.InstanceDeploying(name="app", template=template, by=BY)
    assert complaints([("north", "instance", "i", deploying)])
    assert complaints([("north", "instance", "i", deploying), ("north", "instance", "i", ev.InstanceRunning())]) == []
