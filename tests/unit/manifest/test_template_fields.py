"""Every field of a template file: said where it is wrong, and shown by an example that holds."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from hub.manifest import ManifestError, load_template
from hub.manifest.load import parse_template
from hub.manifest.models import TemplateFile
from hub.manifest.reference import template_schema

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-to" / "templates.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
GOOD = """\
name: shop
version: 1.0.0
entrypoint: web
requires: {calque: ">=0.1"}
environment: {LEVEL: info}
environments:
  dev:
    environment: {LEVEL: debug}
    services:
      web: {environment: {TITLE: Dev}}
    without: [search]
services:
  web:
    type: public
    artifacts:
      - {type: process, directory: ./app, command: [run]}
      - {type: image, image: "registry.example/shop:1"}
    port: 8080
    environment: {TOKEN: {secretRef: pay-token}, SEARCH: "${search.url}"}
    wants: [search]
    requires: {python: ">=3.11"}
    hooks:
      before_copy: {exec: [run, before]}
      before_restore: {exec: [run, scrub]}
  search:
    optional: true
    artifact: {directory: ./app, command: [run]}
    port: 8081
data_services:
  db: {type: database, requires: {engine: postgres, version: ">=15,<19"}}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "run").write_text("x")
    return tmp_path


def test_the_whole_of_it_is_read(base: Path) -> None:
    template = parse_template(GOOD.encode(), file="calque.yaml", base=base)
    web = template.services["web"]
    assert (web.artifact.directory, web.alternatives[0].image) == (str(base / "app"), "registry.example/shop:1")
    assert web.artifact.digest
    assert template.data_services["db"].requires is not None
    assert template.environments["dev"].services["web"].environment == {"TITLE": "Dev"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('calque: ">=0.1"', "calque: new", r"4:20: requires.calque: 'new' is no range of versions; write it like"),
        ('calque: ">=0.1"', "calqe: new", r"4:12: requires.calqe: unknown key; did you mean 'calque'\?"),
        ("{LEVEL: info}", "{1L: info}", r"5:19: environment.1L: '1L' is no variable's name"),
        ("{LEVEL: info}", "{LEVEL: [a]}", r"5:22: environment.LEVEL: a list .*; write text, or {secretRef: NAME}"),
        ("{LEVEL: info}", "{LEVEL: '${nil.x}'}", r"5:22: environment.LEVEL: \${nil.x} names no data service"),
        ("{LEVEL: debug}", "{LEVEL: '${nil.x}'}", r"8:26: environments.dev.environment.LEVEL: \${nil.x} names no"),
        ("web: {environment: {TITLE", "wep: {environment: {TITLE", r"10:12: environments.dev.services.wep: there is"),
        ("{TITLE: Dev}", "{TITLE: {secretRef: A}}", r"10:46: environments.dev.services.web.environment.TITLE.secret"),
        ("without: [search]", "without: [web]", r"11:15: environments.dev.without\[0\]: 'web' is not optional"),
        ("directory: ./app, command: [run]}\n      -", "directory: ./ap, command: [run]}\n      -",
         r"16:36: services.web.artifacts\[0\].directory: there is no directory"),
        ("command: [run]}\n      -", "command: run}\n      -", r"16:52: services.web.artifacts\[0\].command: 'run' .*"),
        ('"registry.example/shop:1"', '"a b"', r"17:30: services.web.artifacts\[1\].image: 'a b' is no image's name"),
        ('type: image, image: "registry.example/shop:1"', "directory: ./app, command: [run]",
         r"17:9: services.web.artifacts\[1\]: there is an artifact of type process already"),
        ("    port: 8080\n", "    artifact: {directory: ./app, command: [run]}\n    port: 8080\n",
         r"16:7: services.web.artifacts: artifact is given too; keep one of them"),
        ("{secretRef: pay-token}", "{secretref: pay-token}", r"19:\d+: services.web.environment.TOKEN.secret"),
        ("{secretRef: pay-token}", "{secretRef: Pay Token}", r"19:38: services.web.environment.TOKEN.secretRef: .*"),
        ("wants: [search]", "wants: [db]", r"20:13: services.web.wants\[0\]: 'db' is not optional; use depends_on"),
        ("wants: [search]", "wants: [searches]", r"20:13: services.web.wants\[0\]: there is no part 'searches'"),
        ("    wants: [search]\n", "", r"\d+:\d+: services.web.environment.SEARCH: app service 'web' can't do without"),
        ('python: ">=3.11"', "python: latest", r"21:24: services.web.requires.python: 'latest' is no range"),
        ("{exec: [run, before]}", "{exec: run}", r"23:27: services.web.hooks.before_copy.exec: 'run' .*; write a list"),
        ("{exec: [run, before]}", "{}", r"23:20: services.web.hooks.before_copy: there is nothing to call; give http"),
        ("{exec: [run, before]}", "{exec: [run], http: GET /}", r"23:20: services.web.hooks.before_copy: both http"),
        ("{exec: [run, scrub]}", "{http: POST /x}", r"24:30: services.web.hooks.before_restore.http: the app"),
        ("before_copy", "before_coppy", r"23:7: services.web.hooks.before_coppy: unknown key; did you mean 'before"),
        ("optional: true", "optional: perhaps", r"26:15: services.search.optional: 'perhaps' .*; write true or false"),
        ("artifact: {directory: ./app, command: [run]}\n    port: 8081", "port: 8081",
         r"26:5: services.search.artifact: it is missing; add 'artifact' here"),
        ('version: ">=15,<19"', "version: sixteen", r"30:62: data_services.db.requires.version: 'sixteen' is no range"),
    ],
)  # fmt: skip
def test_a_fault_in_any_field_names_its_place(base: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError) as caught:
        parse_template(GOOD.replace(old, new, 1).encode(), file="calque.yaml", base=base)
    found = [str(fault).removeprefix("calque.yaml:") for fault in caught.value.faults]
    assert any(re.match(said, each) for each in found), found


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: re.search(r"version: (\S+)", text)[1])  # type: ignore[index]
def test_every_example_of_the_page_holds(base: Path, text: str) -> None:
    assert parse_template(text.encode(), file="templates.md", base=base).services


def test_the_page_explains_every_field() -> None:
    page = PAGE.read_text()
    fields = {name for each in _models() for name in each["properties"]}
    assert len(fields) > 40
    assert sorted(name for name in fields if f"`{name}`" not in page and f"{name}:" not in page) == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("calque.yaml")), ids=lambda path: path.parent.name)
def test_an_example_names_its_schema_and_follows_it(path: Path) -> None:
    first, _ = path.read_text().split("\n", 1)
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == ROOT / "docs" / "template.schema.json"
    jsonschema.validate(yaml.safe_load(path.read_text()), yaml.safe_load(template_schema()))
    assert load_template(path)


def _models() -> list[dict[str, dict[str, object]]]:
    schema = TemplateFile.model_json_schema()
    return [schema, *(each for each in schema["$defs"].values() if "properties" in each)]
