"""The published schemas: made from the types, complete, consistent, and true of what is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from schemas import subjects
from schemas.asyncapi import channels
from schemas.commands import ApplyTemplate, RunImage
from schemas.envelope import decode, encode, wrap
from schemas.events import CopyPrepared
from schemas.generate import DIRECTORY, differences, documents, main, write
from schemas.json_schemas import message_types
from schemas.samples import sample
from schemas.values import Template

JSON = DIRECTORY / "json"
DOCUMENT = json.loads((DIRECTORY / "asyncapi.json").read_text())


def test_they_are_what_the_types_make() -> None:
    assert differences() == [], "run: make generate"


def test_the_check_names_every_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    assert differences(tmp_path) == []
    (tmp_path / "asyncapi.json").write_text("{}")
    (tmp_path / "json" / "envelope.json").unlink()
    (tmp_path / "json" / "more.json").write_text("{}")
    assert differences(tmp_path) == ["asyncapi.json", "json/envelope.json", "json/more.json"]
    monkeypatch.setattr("schemas.generate.differences", lambda: differences(tmp_path))
    assert main(["--check"]) == 1
    assert capsys.readouterr().err.count("make generate") == 3
    write(tmp_path)
    assert differences(tmp_path) == []


def test_they_are_made_the_same_every_time() -> None:
    assert documents() == documents()


@pytest.mark.parametrize("name", sorted(message_types()))
def test_the_sample_of_each_message_is_valid_by_schema_and_by_type(name: str) -> None:
    kind = message_types()[name]
    schema = json.loads((JSON / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    data = sample(kind)
    jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)
    msgspec.convert(data, kind)
    [example] = DOCUMENT["components"]["messages"][name]["examples"]
    envelope = json.loads((JSON / "envelope.json").read_text())
    jsonschema.validate(example["payload"], envelope, cls=jsonschema.Draft202012Validator)
    decode(json.dumps(example["payload"]).encode())


def test_what_we_send_is_valid_by_schema() -> None:
    for data in (
        RunImage(instance="i", name="n", site="s", plans={"ideas": "small"}),
        CopyPrepared(moment="m", level="crash"),
        ApplyTemplate(template=Template(name="t", version="1")),
    ):
        sent = json.loads(encode(wrap(data, id="1", source="s", time="2026-01-01T00:00:00Z")))
        schema = json.loads((JSON / f"{sent['type']}.json").read_text())
        jsonschema.validate(sent["data"], schema, cls=jsonschema.Draft202012Validator)
        assert sent["dataschema"] == schema["$id"]


def test_a_sender_learns_of_a_field_that_is_not_known_and_a_reader_ignores_it() -> None:
    command = json.loads((JSON / f"{RunImage.TYPE}.json").read_text())
    event = json.loads((JSON / f"{CopyPrepared.TYPE}.json").read_text())
    assert command["additionalProperties"] is False
    assert event.get("additionalProperties", True) is True


def test_every_reference_of_the_document_leads_somewhere() -> None:
    for reference in _references(DOCUMENT):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part.replace("~1", "/")]
        assert place


def test_every_type_is_in_the_index_and_the_subjects_are_those_of_the_builder() -> None:
    index = json.loads((JSON / "index.json").read_text())["types"]
    assert set(index) == set(message_types())
    built = {
        "calque.command.hub.instance.deploy.v1": subjects.hub_command(
            principal="P", aggregate="instance", id="I", verb="deploy"
        ),
        "calque.command.site.instance.save.v1": subjects.site_command(
            site="S", principal="P", aggregate="instance", id="I", verb="save"
        ),
        "calque.event.copy.prepared.v1": subjects.event(writer="W", aggregate="copy", id="I", event="prepared"),
        "calque.query.apps.v1": subjects.query("apps"),
        "calque.rpc.logs.v1": subjects.site_rpc(site="S", operation="logs"),
        "calque.ask.grant.v1": subjects.site_ask(site="S", operation="grant"),
        "calque.request.dsb.bind.v1": subjects.broker_request(site="S", kind="dsb", broker="B", operation="bind"),
        "calque.signal.progress.v1": subjects.progress(site="S", operation="O"),
        "calque.signal.log.v1": subjects.log(site="S", instance="I", service="X"),
        "calque.signal.beat.v1": subjects.beat("S"),
    }
    for name, subject in built.items():
        pattern = re.sub(r"\{\w+\}", "[A-Z]", re.escape(index[name]["subject"]).replace(r"\{", "{").replace(r"\}", "}"))
        assert re.fullmatch(pattern, subject), (name, index[name]["subject"], subject)


def test_every_message_type_is_said_on_some_channel() -> None:
    said = {getattr(each.message, "TYPE", "") for each in channels()}
    said |= {getattr(each.reply, "TYPE", "") for each in channels() if each.reply is not None}
    inside_outcomes = {name for name in message_types() if name.startswith("calque.reply.")}
    over_http_alone = {"calque.webhook.test.v1"}
    assert set(message_types()) - said - inside_outcomes - over_http_alone == {"calque.problem.v1"}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref":
                yield each
            else:
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
