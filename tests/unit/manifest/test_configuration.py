"""Layers of configuration, optional parts, artifacts: what of a template runs, and where each value comes from."""

from __future__ import annotations

import json

import msgspec
import pytest

from schemas.choices_check import check_choices
from schemas.configuration import configured, effective, inherited, left_out
from schemas.deployed import deployed, variables
from schemas.events import InstanceDeploying
from schemas.template_check import check_template, template_digest
from schemas.values import (
    Artifact,
    Choices,
    DataServiceSpec,
    ImageContent,
    InstanceConfiguration,
    NamedEnvironment,
    Requester,
    SecretRef,
    ServiceEnvironment,
    ServiceSpec,
    Template,
)
from schemas.versions import MalformedRange, parse_range, satisfies

PROCESS = Artifact(directory="/app", command=("python", "-m", "app"))
IMAGE = Artifact(type="image", image="registry.example/app:1")
SHOP = Template(
    name="shop",
    version="1",
    entrypoint="web",
    environment={"A": "app", "B": "app", "C": "app", "D": "app", "E": "app"},
    environments={
        "dev": NamedEnvironment(
            environment={"C": "dev", "D": "dev", "E": "dev"},
            services={"web": ServiceEnvironment(environment={"D": "dev web", "E": "dev web"})},
            without=("search",),
        ),
        "production": NamedEnvironment(environment={"TOKEN": SecretRef(name="token")}),
    },
    services={
        "web": ServiceSpec(
            artifact=PROCESS,
            alternatives=(IMAGE,),
            type="public",
            port=80,
            environment={"B": "service", "C": "service", "SEARCH": "${search.url}"},
            wants=("search",),
        ),
        "search": ServiceSpec(artifact=PROCESS, port=81, optional=True, environment={"INDEX": "${index.path}"}),
    },
    data_services={"db": DataServiceSpec(type="database"), "index": DataServiceSpec(type="volume", optional=True)},
)


def test_the_last_layer_that_sets_a_value_wins_and_is_named() -> None:
    choices = Choices(environment_name="dev", environment={"web": {"E": "instance"}})
    found = configured(SHOP, "web", choices)
    assert {name: (each.value, each.layer) for name, each in found.items() if len(name) == 1} == {
        "A": ("app", "app"),
        "B": ("service", "service"),
        "C": ("dev", "environment"),
        "D": ("dev web", "environment"),
        "E": ("instance", "instance"),
    }
    assert found["D"].field == "environments.dev.services.web.environment.D"
    assert found["E"].field == "environment.web.E"


def test_what_runs_has_all_its_values_and_one_artifact() -> None:
    running = effective(SHOP, Choices(environment_name="production"), picked={"web": IMAGE})
    web = running.services["web"]
    assert (web.artifact, web.alternatives) == (IMAGE, ())
    assert web.environment["TOKEN"] == SecretRef(name="token")
    assert web.environment["SEARCH"] == "${search.url}"
    assert (running.environment, running.environments) == ({}, {})


def test_what_is_left_out_takes_along_the_variables_that_refer_to_it() -> None:
    choices = Choices(environment_name="dev", without=("index",))
    assert left_out(SHOP, choices) == ("index", "search")
    assert check_choices(SHOP, choices) == []
    running = effective(SHOP, choices)
    assert (set(running.services), set(running.data_services)) == ({"web"}, {"db"})
    assert "SEARCH" not in running.services["web"].environment
    assert running.services["web"].wants == ()
    assert left_out(SHOP, Choices(environment_name="dev", including=("search",))) == ()


@pytest.mark.parametrize(
    ("choices", "field", "words"),
    [
        (Choices(without=("db",)), "without[0]", "'db' is not optional; optional are: index, search"),
        (Choices(without=("dbs",)), "without[0]", "no part 'dbs'"),
        (Choices(without=("index",)), "services.search.environment.INDEX", "can't do without 'index'"),
        (Choices(without=("search",), including=("search",)), "including", "say one of the two"),
        (Choices(environment_name="test"), "environment_name", "use one of: dev, production"),
        (Choices(environment={"web": {"X": SecretRef(name="A B")}}), "environment.web.X.secretRef", "not a name"),
        (Choices(artifacts={"api": IMAGE}), "artifacts.api", "no app service 'api'"),
        (Choices(artifacts={"search": Artifact(type="image")}), "artifacts.search.image", "needs an image"),
    ],
)
def test_a_choice_that_does_not_fit_names_field_and_remedy(choices: Choices, field: str, words: str) -> None:
    [problem] = check_choices(SHOP, choices)
    assert problem.field == field
    assert words in problem.sentence()
    assert problem.remedy


def test_without_a_want_a_service_can_not_do_without_what_it_refers_to() -> None:
    web = msgspec.structs.replace(SHOP.services["web"], wants=())
    strict = msgspec.structs.replace(SHOP, services={**SHOP.services, "web": web})
    [problem] = check_choices(strict, Choices(without=("search",)))
    assert problem.field == "services.web.environment.SEARCH"
    assert "services.web.wants: [search]" in problem.sentence()
    [known] = check_template(strict)
    assert known == problem, "the environment dev leaves it out too"


def test_another_artifact_has_the_command_of_the_template() -> None:
    running = effective(SHOP, Choices(artifacts={"web": Artifact(directory="/other", digest="d")}))
    assert running.services["web"].artifact == Artifact(directory="/other", digest="d", command=PROCESS.command)


def test_an_image_brings_its_choices_and_takes_others() -> None:
    captured = InstanceConfiguration(
        template=SHOP, environment={"web": {"A": "1", "B": "1"}}, environment_name="dev", without=("search",)
    )
    same = inherited(captured, Choices(environment={"web": {"B": "2"}}))
    assert same.environment == {"web": {"A": "1", "B": "2"}}
    assert (same.environment_name, left_out(SHOP, same)) == ("dev", ("search",))
    other = inherited(captured, Choices(environment_name="production"))
    assert (other.environment_name, left_out(SHOP, other)) == ("production", ("search",)), "it holds nothing of it"
    assert left_out(SHOP, inherited(captured, Choices(including=("search",)))) == ()


def test_what_an_image_holds_stays_although_its_environment_leaves_it_out_elsewhere() -> None:
    whole = InstanceConfiguration(template=SHOP, environment_name="dev", without=())
    assert left_out(SHOP, inherited(whole, Choices())) == ()
    assert left_out(SHOP, inherited(whole, Choices(without=("search",)))) == ("search",)


OLD = (
    '{"name":"ideas","by":{"principal":"admin"},"environment":{"web":{"TITLE":"x"}},"brokers":{"web":"process"},'
    '"template":{"name":"hackathon","version":"1","services":{"web":{"artifact":{"directory":"/app","command":["run"]},'
    '"environment":{"TITLE":"Ideas","URI":"${ideas.uri}"},"hooks":{"quiesce":{"http":"POST /quiesce"},'
    '"thaw":{"http":"POST /thaw"}}}},"data_services":{"ideas":{"type":"database"}}}}'
)


def test_an_event_from_before_there_were_layers_is_read_as_it_was_meant() -> None:
    event = msgspec.json.decode(OLD, type=InstanceDeploying)
    running = deployed(event)
    assert running.services["web"].environment == {"TITLE": "x", "URI": "${ideas.uri}"}
    assert variables(event)["web"]["TITLE"].layer == "instance"
    assert running.data_services == event.template.data_services
    assert event.by == Requester(principal="admin")


def test_an_image_from_before_there_were_layers_is_read() -> None:
    template = json.loads(OLD)["template"]
    old = {
        "image": "i",
        "site": "north",
        "level": "application",
        "instances": [{"instance": "1", "instance_name": "a", "configuration": {"template": template}}],
    }
    content = msgspec.json.decode(json.dumps(old), type=ImageContent)
    captured = content.instances[0].configuration
    assert left_out(captured.template, inherited(captured, Choices())) == ()


def test_the_digest_of_a_template_from_before_has_not_changed() -> None:
    template = msgspec.json.decode(json.dumps(json.loads(OLD)["template"]), type=Template)
    assert template_digest(template) == "cd18c90bf73fd99bf9cfe70267b9f2780cd03cd277126b2c2d3eb90643b15f13"


@pytest.mark.parametrize(
    ("version", "wanted", "lies"),
    [
        ("16.4", ">=15,<18", True),
        ("18.0", ">=15,<18", False),
        ("16.4 (Debian 16.4-1)", "==16", True),
        ("16.4", "!=16", False),
        ("16.4", "~=16.2", True),
        ("17.0", "~=16.2", False),
        ("16.1", "~=16.2", False),
        ("v1.30.2", ">1.28", True),
        ("1.28", ">1.28.0", False),
        ("1.28", "<=1.28.0", True),
        ("16", "16", True),
        ("unknown", ">=1", False),
    ],
)
def test_a_version_lies_in_a_range(version: str, wanted: str, lies: bool) -> None:
    assert satisfies(version, wanted) is lies


@pytest.mark.parametrize("text", ["", "new", ">=", "=>1", "1,", "~=1", ">=1 <2", ">=1.x"])
def test_what_is_no_range_is_told(text: str) -> None:
    with pytest.raises(MalformedRange):
        parse_range(text)
