"""What a template must hold, and how problems name the field."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.template_check import (
    CycleError,
    MalformedReference,
    Reference,
    check_overrides,
    check_template,
    order,
    references,
    resolve,
    template_digest,
)
from schemas.values import Artifact, DataServiceSpec, HealthCheck, Hook, Hooks, ServiceSpec, Template

PROCESS = Artifact(directory="/app", command=("python", "-m", "app"))


def web(**changes: object) -> ServiceSpec:
    return msgspec.structs.replace(
        ServiceSpec(artifact=PROCESS, type="public", port=8080, environment={"IDEAS_URI": "${ideas.uri}"}), **changes
    )


def template(**changes: object) -> Template:
    return msgspec.structs.replace(
        Template(
            name="hackathon",
            version="1.0",
            services={"web": web()},
            data_services={"ideas": DataServiceSpec(type="database")},
            entrypoint="web",
        ),
        **changes,
    )


def test_a_sound_template_has_no_problem() -> None:
    assert check_template(template()) == []


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        (template(name="Hack A"), "name", "not a name"),
        (template(version="1_0"), "version", "not a version"),
        (template(services={}, entrypoint=None), "services", "no app service"),
        (template(entrypoint="api"), "entrypoint", "'api'"),
        (template(services={"web": web(type="private")}), "entrypoint", "private, not public"),
        (template(services={"web": web(port=None)}), "entrypoint", "no port"),
        (template(services={"web": web(port=70000)}), "services.web.port", "70000"),
        (template(services={"web": web(port=0)}), "services.web.port", "1 to 65535"),
        (template(services={"web": web(), "Bad_": web()}), "services.Bad_", "not a name"),
        (
            template(services={"web": web(environment={"IDEAS_URI": "${idea.uri}"})}),
            "services.web.environment.IDEAS_URI",
            "names no data service",
        ),
        (
            template(services={"web": web(environment={"IDEAS_URI": "${ideas}"})}),
            "services.web.environment.IDEAS_URI",
            "no reference",
        ),
        (
            template(services={"web": web(environment={"IDEAS_URI": "x ${ideas.uri"})}),
            "services.web.environment.IDEAS_URI",
            "no reference",
        ),
        (template(services={"web": web(environment={"1X": ""})}), "services.web.environment.1X", "variable"),
        (template(services={"web": web(depends_on=("db",))}), "services.web.depends_on[0]", "'db'"),
        (template(services={"web": web(depends_on=("ideas",))}), "services.web.depends_on[0]", "data service"),
        (
            template(services={"web": web(artifact=Artifact(command=("x",)))}),
            "services.web.artifact",
            "directory or a wheel",
        ),
        (template(services={"web": web(artifact=Artifact(directory="/a"))}), "services.web.artifact.command", "no c"),
        (template(services={"web": web(health=HealthCheck(path="healthz"))}), "services.web.health.path", "begin it"),
        (
            template(services={"web": web(hooks=Hooks(quiesce=Hook(http="POST x"), thaw=Hook(http="POST /y")))}),
            "services.web.hooks.quiesce.http",
            "METHOD /path",
        ),
        (
            template(services={"web": web(hooks=Hooks(quiesce=Hook(http="POST /x")))}),
            "services.web.hooks.thaw",
            "without the other",
        ),
        (template(data_services={"ideas": DataServiceSpec(type="database"), "web": DataServiceSpec(type="other")}),
         "services.web", "data service too"),
        (
            template(services={"web": web(environment={"A": "${api.uri}"}), "api": web()}),
            "services.web.environment.A",
            "no 'uri'",
        ),
        (template(services={"web": web(stop_grace_seconds=float("nan"))}), "services.web.stop_grace_seconds", "dura"),
    ],
)  # fmt: skip
def test_a_problem_names_the_field_and_what_to_do(changed: Template, field: str, words: str) -> None:
    found = {problem.field: problem for problem in check_template(changed)}
    assert field in found
    assert words in found[field].sentence()
    assert found[field].remedy


def test_a_cycle_is_named() -> None:
    services = {"web": web(depends_on=("api",)), "api": web(depends_on=("jobs",)), "jobs": web(depends_on=("api",))}
    [problem] = check_template(template(services=services))
    assert problem.field == "services.api.depends_on"
    assert "api -> jobs -> api" in problem.message


def test_a_reference_makes_an_order_and_so_a_cycle() -> None:
    services = {"web": web(environment={"API": "${api.url}"}), "api": web()}
    assert order(services) == ("api", "web")
    services["api"] = web(depends_on=("web",))
    with pytest.raises(CycleError) as caught:
        order(services)
    assert caught.value.cycle == ("api", "web", "api")


def test_all_problems_are_found_at_once() -> None:
    changed = template(name="!", entrypoint="x", services={"web": web(port=-1, depends_on=("y",))})
    assert [problem.field for problem in check_template(changed)] == [
        "name",
        "entrypoint",
        "services.web.port",
        "services.web.depends_on[0]",
    ]


def test_overrides_are_checked_against_the_template() -> None:
    found = check_overrides(
        template(), environment={"web": {"A": "${nil.uri}"}, "api": {"B": ""}}, plans={"docs": "small", "ideas": "S"}
    )
    assert [each.field for each in found] == ["environment.web.A", "environment.api", "plans.docs", "plans.ideas"]
    assert check_overrides(template(), environment={"web": {"A": "1"}}, plans={"ideas": "small"}) == []


def test_an_override_can_not_close_a_circle() -> None:
    two = template(services={"web": web(depends_on=("api",)), "api": web()})
    [problem] = check_overrides(two, environment={"api": {"WEB": "${web.url}"}}, plans={})
    assert problem.field == "services.api.environment"


def test_references_and_the_escape() -> None:
    assert references("a ${ideas.uri} $${x.y} ${docs.access_key}$") == [
        Reference("ideas", "uri"),
        Reference("docs", "access_key"),
    ]
    assert resolve("a ${ideas.uri} $${x.y}", lambda each: f"<{each.service}>") == "a <ideas> ${x.y}"
    with pytest.raises(MalformedReference):
        references("${}")


@given(st.text(alphabet="${}.ab $", max_size=30))
def test_resolving_never_fails_otherwise(text: str) -> None:
    try:
        resolved = resolve(text, lambda each: "")
    except MalformedReference:
        return
    assert references(text.replace("$${", "")) is not None
    assert len(resolved) <= len(text)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef")), min_size=1))
def test_order_puts_what_is_needed_first_or_names_a_cycle(graph: dict[str, set[str]]) -> None:
    services = {name: ServiceSpec(artifact=PROCESS, depends_on=tuple(wanted)) for name, wanted in graph.items()}
    try:
        found = order(services)
    except CycleError as error:
        cycle = error.cycle
    else:
        assert sorted(found) == sorted(graph)
        assert all(found.index(need) < found.index(name) for name in graph for need in graph[name] & graph.keys())
        return
    assert cycle[0] == cycle[-1]
    assert all(second in graph[first] for first, second in itertools.pairwise(cycle))


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    one = template(services={"web": web(), "api": web(type="private")})
    two = template(services={"api": web(type="private"), "web": web()})
    assert template_digest(one) == template_digest(two)
    assert template_digest(one) != template_digest(template())
