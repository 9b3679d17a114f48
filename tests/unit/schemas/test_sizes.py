"""What is said about a message that is too large: which field, how large, what to do."""

from __future__ import annotations

from schemas.commands import ApplyTemplate, SaveInstance
from schemas.sizes import largest_field, oversized
from schemas.values import Artifact, ServiceSpec, Template


def test_the_field_that_makes_up_most_is_named() -> None:
    service = ServiceSpec(
        artifact=Artifact(directory="/a", command=("x",)), type="worker", environment={"A": "b", "BLOB": "x" * 70_000}
    )
    command = ApplyTemplate(template=Template(name="shop", version="1", services={"web": service}))
    assert largest_field(command) == ("template.services.web.environment.BLOB", 70_002)
    problem = oversized(command, what="the command template.apply", size=70_500, limit=65_536)
    assert problem.field == "template.services.web.environment.BLOB"
    assert "70500 bytes, more than the 65536" in problem.message
    assert "digest" in (problem.remedy or "")


def test_many_small_fields_are_named_together() -> None:
    tags = tuple(f"tag-{number}" for number in range(9000))
    field, size = largest_field(SaveInstance(image="i", name="n", tags=tags))
    assert field == "tags"
    assert size > 65_536
    assert largest_field({"a": "x", "b": "y", "c": "z"})[0] == ""
