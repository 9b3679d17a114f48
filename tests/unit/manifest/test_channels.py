"""Channels in a template: what is refused, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.manifest.faults import ManifestError
from hub.manifest.load import parse_template
from schemas.template_check import check_template
from schemas.values import Artifact, Channel, DataServiceSpec, ServiceSpec, Template

PROCESS = Artifact(directory="/srv/app", command=("run",))


def template(channels: dict[str, Channel], **environment: str) -> Template:
    return Template(
        name="votes",
        version="1",
        services={"web": ServiceSpec(artifact=PROCESS, channels=channels, environment={**environment})},
        data_services={"events": DataServiceSpec(type="messaging"), "db": DataServiceSpec(type="database")},
    )


def fields(template: Template) -> list[str | None]:
    return [problem.field for problem in check_template(template)]


def test_a_channel_with_subjects_and_wildcards_is_fine() -> None:
    channel = Channel(sends=("votes.cast", "votes.*.counted"), receives=("log.>",))
    assert fields(template({"events": channel}, CREDS="${events.creds}")) == []


@pytest.mark.parametrize(
    "subject", ["", "a..b", "a.>.b", "a b", ">", "*.a", "$SYS.x", "_INBOX.x", "a.b*", "é", "x" * 201]
)
def test_what_is_no_subject_of_an_app_is_refused_by_its_place(subject: str) -> None:
    assert fields(template({"events": Channel(receives=("fine", subject))})) == [
        "services.web.channels.events.receives[1]"
    ]


def test_a_channel_is_on_a_data_service_of_type_messaging() -> None:
    sends = Channel(sends=("a",))
    assert fields(template({"db": sends, "nothing": sends})) == [
        "services.web.channels.db",
        "services.web.channels.nothing",
    ]


def test_a_channel_says_something() -> None:
    assert fields(template({"events": Channel()})) == ["services.web.channels.events"]


def test_who_uses_the_credentials_has_a_channel() -> None:
    assert fields(template({}, CREDS="${events.creds}")) == ["services.web.environment.CREDS"]


def test_channels_are_written_in_the_template_file(tmp_path: Path) -> None:
    text = """
name: votes
version: 1
services:
  web:
    artifact: {directory: ., command: [run]}
    channels: {events: {sends: [votes.cast], receives: [votes.counted]}}
data_services:
  events: {type: messaging, broker: nats}
"""
    read = parse_template(text.encode(), file="calque.yaml", base=tmp_path)
    assert read.services["web"].channels == {"events": Channel(sends=("votes.cast",), receives=("votes.counted",))}
    with pytest.raises(ManifestError, match=r"calque\.yaml:7:\d+: services\.web\.channels\.events\.sends\[0\]"):
        parse_template(text.replace("votes.cast", "votes..cast").encode(), file="calque.yaml", base=tmp_path)
