"""What a stranger needs is in the published schemas: from them alone every command and act can be formed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hub.domain.received import Received, read
from schemas.envelope import decode, unwrap
from schemas.generate import DIRECTORY
from schemas.registry import MESSAGES
from schemas.subjects import parse_command

JSON = DIRECTORY / "json"
DOCS = Path(__file__).parents[2] / "docs" / "how-to"
INDEX: dict[str, dict[str, str]] = json.loads((JSON / "index.json").read_text())["types"]
COMMANDS = sorted(name for name in INDEX if name.startswith("calque.command.hub."))
ASKED = sorted(name for name in INDEX if name.startswith(("calque.act.", "calque.query.")))
ID = "01977f2e-8d3c-7a4e-9b60-3f1c2d4e5a6b"
GUIDES = ("publish-commands.md", "subscribe-to-events.md")


def formed(schema: dict[str, Any], root: dict[str, Any], *, whole: bool) -> Any:
    """A value that the schema allows: what is required only, or the ``whole`` of it."""
    if "$ref" in schema:
        return formed(root["$defs"][schema["$ref"].rpartition("/")[2]], root, whole=whole)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            options = [each for each in schema[choice] if each.get("type") != "null"] if whole else schema[choice]
            return formed(options[0], root, whole=whole)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            if "properties" not in schema:
                values = schema.get("additionalProperties")
                return {"key": formed(values, root, whole=False)} if whole and isinstance(values, dict) else {}
            wanted = schema["properties"] if whole else schema.get("required", ())
            return {name: formed(schema["properties"][name], root, whole=False) for name in wanted}
        case "array":
            return [formed(schema["items"], root, whole=False)] if whole and schema.get("items") else []
        case "string":
            return "AAEC" if schema.get("contentEncoding") == "base64" else "text"
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return float(schema.get("minimum", 1))
        case "boolean":
            return True
        case "null":
            return None
    return None


def schema_of(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((JSON / INDEX[name]["schema"]).read_text())
    return schema


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_formed_from_its_schema_alone_is_one_that_the_hub_decides(name: str, whole: bool) -> None:
    schema = schema_of(name)
    data = formed(schema, schema, whole=whole)
    jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)
    envelope = {
        "specversion": "1.0",
        "id": ID,
        "type": name,
        "source": "ci",
        "time": "2026-01-31T12:00:00Z",
        "replyto": "_INBOX.ci.1",
        "data": data,
    }
    jsonschema.validate(envelope, json.loads((JSON / "envelope.json").read_text()), cls=jsonschema.Draft202012Validator)
    subject = parse_command(INDEX[name]["subject"].format(principal="ci", id=ID))
    received = read(subject, decode(json.dumps(envelope).encode()), now=datetime(2026, 1, 31, 12, tzinfo=UTC))
    assert isinstance(received, Received), received


@pytest.mark.parametrize("name", ASKED)
def test_a_question_formed_from_its_schema_alone_is_understood(name: str) -> None:
    schema = schema_of(name)
    data = formed(schema, schema, whole=False)
    jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)
    envelope = {"specversion": "1.0", "id": ID, "type": name, "source": "ci", "time": "", "data": data}
    unwrap(decode(json.dumps(envelope).encode()), MESSAGES[name])
    assert INDEX[name]["subject"].startswith(("calque.act.{principal}.", "calque.qry."))


@pytest.mark.parametrize("name", COMMANDS + ASKED)
def test_every_one_says_what_it_is_for(name: str) -> None:
    assert INDEX[name]["description"]


def samples(page: str) -> Iterator[dict[str, Any]]:
    for block in re.findall(r"```json\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL):
        yield json.loads(block)


def test_the_samples_of_the_guides_are_valid() -> None:
    found = [sample for page in GUIDES for sample in samples(page)]
    assert len(found) == 2
    command = next(sample for sample in found if "specversion" in sample)
    for document, name in (
        (command, None),
        (command["data"], command["type"]),
        (next(sample for sample in found if sample is not command), "calque.act.subscribe.v1"),
    ):
        schema = json.loads((JSON / "envelope.json").read_text()) if name is None else schema_of(name)
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)


def test_the_guides_name_subjects_and_types_that_there_are() -> None:
    said = "\n".join((DOCS / page).read_text() for page in GUIDES)
    for name in re.findall(r"`(calque\.[a-z_.]+\.v1)`", said):
        assert name in INDEX, name
