"""Which broker of a site serves which part, and what a site is said to lack."""

from __future__ import annotations

import msgspec
import pytest

from schemas.events import BrokerRegistered
from schemas.fitting import Fit, Offer, fit
from schemas.values import (
    AppRequirement,
    Artifact,
    Choices,
    DataServiceRequirement,
    DataServiceSpec,
    Hook,
    Hooks,
    Plan,
    SecretRef,
    ServiceSpec,
    Template,
)

PROCESS = Artifact(directory="/app", command=("run",))
IMAGE = Artifact(type="image", image="registry.example/app:1")
LOCAL = BrokerRegistered(
    kind="psb", name="process", version="1", types=("process",), engine="python", engine_version="3.11.7",
    hooks=("http", "run", "exec", "task"),
)  # fmt: skip
CLUSTER = BrokerRegistered(
    kind="psb", name="cluster", version="1", types=("image",), engine="kubernetes", engine_version="1.30.2",
    hooks=("http", "run"),
)  # fmt: skip
POSTGRES = BrokerRegistered(
    kind="dsb", name="postgres", version="1", types=("database",), plans=(Plan(name="small"),), attributes=("uri",),
    engine="postgres", engine_version="16.4",
)  # fmt: skip
WEB = ServiceSpec(artifact=PROCESS, alternatives=(IMAGE,), port=80, environment={"URI": "${db.uri}"})
SHOP = Template(name="shop", version="1", services={"web": WEB}, data_services={"db": DataServiceSpec(type="database")})


def offer(*brokers: BrokerRegistered, secrets: frozenset[str] = frozenset()) -> Offer:
    return Offer("north", (*brokers, POSTGRES), "0.1.0", secrets)


def with_web(**changes: object) -> Template:
    return msgspec.structs.replace(SHOP, services={"web": msgspec.structs.replace(WEB, **changes)})


@pytest.mark.parametrize(
    ("platforms", "picked", "broker"),
    [((LOCAL,), PROCESS, "process"), ((CLUSTER,), IMAGE, "cluster"), ((CLUSTER, LOCAL), PROCESS, "process")],
)
def test_the_first_artifact_that_a_platform_can_run_is_picked(
    platforms: tuple[BrokerRegistered, ...], picked: Artifact, broker: str
) -> None:
    found = fit(SHOP, Choices(), offer(*platforms))
    assert isinstance(found, Fit)
    assert found.picked == {"web": picked}
    assert found.template.services["web"].artifact == picked
    assert found.brokers == {"web": broker, "db": "postgres"}
    assert found.plans == {"db": "small"}


def test_a_platform_that_can_not_call_a_hook_is_passed_over() -> None:
    template = with_web(artifact=IMAGE, alternatives=(PROCESS,), hooks=Hooks(after_restore=Hook(exec=("reindex",))))
    found = fit(template, Choices(), offer(CLUSTER, LOCAL))
    assert isinstance(found, Fit)
    assert found.brokers["web"] == "process"


@pytest.mark.parametrize(
    ("template", "brokers", "field", "words"),
    [
        (SHOP, (), "services.web.artifacts", "no platform for process or image artifacts; it has: none"),
        (with_web(alternatives=()), (CLUSTER,), "services.web.artifact", "it has: cluster (image)"),
        (
            with_web(requires={"python": ">=3.13"}),
            (LOCAL,),
            "services.web.requires.python",
            "python 3.11.7; >=3.13 is required",
        ),
        (
            with_web(artifact=IMAGE, alternatives=(), hooks=Hooks(before_restore=Hook(exec=("scrub",)))),
            (CLUSTER,),
            "services.web.hooks.before_restore",
            "can't run this hook (task); it can: http, run",
        ),
        (
            with_web(environment={"TOKEN": SecretRef(name="pay")}),
            (LOCAL,),
            "services.web.environment.TOKEN",
            "calque secret set pay --site north",
        ),
        (
            with_web(environment={"URI": "${db.url}"}),
            (LOCAL,),
            "services.web.environment.URI",
            "have no attribute 'url'; use one of: uri",
        ),
        (
            msgspec.structs.replace(
                SHOP,
                data_services={
                    "db": DataServiceSpec(
                        type="database", requires=DataServiceRequirement(engine="postgres", version=">=17,<19")
                    )
                },
            ),
            (LOCAL,),
            "data_services.db.requires",
            "no postgres >=17,<19; it has: postgres (postgres 16.4)",
        ),
        (
            msgspec.structs.replace(SHOP, requires=AppRequirement(calque=">=2")),
            (LOCAL,),
            "requires.calque",
            "has Calque 0.1.0; the template requires >=2",
        ),
    ],
)
def test_what_a_site_lacks_is_named(
    template: Template, brokers: tuple[BrokerRegistered, ...], field: str, words: str
) -> None:
    found = fit(template, Choices(), offer(*brokers))
    assert isinstance(found, list)
    assert field in {problem.field for problem in found}
    assert any(words in problem.sentence() for problem in found), [problem.sentence() for problem in found]


def test_a_copy_that_one_plan_alone_restores_has_that_plan() -> None:
    plans = (Plan(name="small"), Plan(name="dedicated", copy_formats=("files",)))
    there = Offer("north", (LOCAL, msgspec.structs.replace(POSTGRES, plans=plans)), "0.1.0", frozenset())

    def planned(choices: Choices, copy_format: str) -> object:
        found = fit(SHOP, choices, there, made_by={"db": "postgres"}, formats={"db": copy_format})
        return found.plans["db"] if isinstance(found, Fit) else [(each.code, each.field) for each in found]

    assert planned(Choices(), "files") == "dedicated"
    assert planned(Choices(), "rows") == "small"
    assert planned(Choices(plans={"db": "dedicated"}), "rows") == "dedicated"
    assert planned(Choices(plans={"db": "small"}), "files") == [("conflict", "plans.db")]


def test_everything_that_a_site_lacks_comes_at_once() -> None:
    template = msgspec.structs.replace(SHOP, data_services={"db": DataServiceSpec(type="cache")})
    found = fit(template, Choices(), offer())
    assert isinstance(found, list)
    assert [problem.field for problem in found] == ["data_services.db", "services.web.artifacts"]


def test_a_secret_that_the_site_has_holds_nothing_up() -> None:
    template = with_web(environment={"TOKEN": SecretRef(name="pay")})
    assert isinstance(fit(template, Choices(), offer(LOCAL, secrets=frozenset({"pay"}))), Fit)
