"""The template file: what is read, and how a wrong one is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hub.manifest import ManifestError, load_template
from hub.manifest.load import parse_template
from hub.manifest.reference import template_schema
from schemas.artifact_digest import tree_digest
from schemas.problems import CalqueError

ROOT = Path(__file__).parents[3]
GOOD = """\
name: hackathon
version: 1.10
entrypoint: web
services:
  web:
    type: public
    artifact:
      directory: app
      command: [python, -m, app]
    port: 8080
    environment:
      IDEAS_URI: ${ideas.uri}
      WORKERS: 007
      DEBUG: yes
    health: {path: /healthz}
data_services:
  ideas: {type: database}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("print()\n")
    return tmp_path


def faults(text: str | bytes, base: Path) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(ManifestError) as caught:
        parse_template(content, file="calque.yaml", base=base)
    return str(caught.value).splitlines()


def test_a_good_file_is_read_as_it_is_written(base: Path) -> None:
    (base / "calque.yaml").write_text(GOOD)
    template = load_template(base / "calque.yaml")
    web = template.services["web"]
    assert template.version == "1.10"
    assert web.environment == {"IDEAS_URI": "${ideas.uri}", "WORKERS": "007", "DEBUG": "yes"}
    assert web.artifact.directory == str(base / "app")
    assert web.artifact.digest == tree_digest(base / "app")
    assert web.port == 8080


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("calque.yaml")), ids=lambda path: path.parent.name)
def test_every_example_is_sound(path: Path) -> None:
    assert load_template(path).services


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("broken/*.yaml")), ids=lambda path: path.stem)
def test_every_broken_example_is_refused_with_one_fault(path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load_template(path)
    [fault] = caught.value.faults
    assert fault.line > 1
    # The comment on top says which field it is.
    assert (fault.problem.field or "").rsplit(".", 1)[-1].split("[")[0] in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("port: 8080", "port: 80800", r"calque.yaml:10:11: services.web.port: 80800 is no port; use a number from 1"),
        ("port: 8080", "port: http", r"calque.yaml:10:11: services.web.port: 'http' .*; write a whole number"),
        ("port: 8080", "prot: 8080", r"calque.yaml:10:5: services.web.prot: unknown key; did you mean 'port'\?"),
        ("type: public", "type: web", r"calque.yaml:6:11: services.web.type: 'web' .*; use one of: public, private, w"),
        ("{type: database}", "{type: db}", r"calque.yaml:17:17: data_services.ideas.type: 'db' .*; use one of: data"),
        ("${ideas.uri}", "${idea.uri}", r"calque.yaml:12:18: services.web.environment.IDEAS_URI: \$\{idea.uri\} names"),
        ("directory: app", "directory: ap", r"calque.yaml:8:18: services.web.artifact.directory: there is no dir"),
        ("name: hackathon\n", "", r"calque.yaml:1:1: name: it is missing; add 'name' here"),
        ("name: hackathon\n", "name:\n", r"calque.yaml:1:6: name: there is no value"),
        ("entrypoint: web", "entrypoint: www", r"calque.yaml:3:13: entrypoint: there is no app service 'www'"),
        ("    health: {path: /healthz}", "    health: /healthz", r"calque.yaml:15:13: services.web.health: .* mapping"),
        ("[python, -m, app]", "python -m app", r"calque.yaml:9:16: services.web.artifact.command: .* a list"),
        ("[python, -m, app]", "[python", r"calque.yaml:10:9: file: not YAML"),
        ("port: 8080", "port: !!python/name:os.system 1", r"calque.yaml:10:11: services.web.port: the tag"),
        ("port: 8080", "port: 8080\n    port: 1", r"calque.yaml:11:5: services.web.port: .* twice, first on line 10"),
        ("    port: 8080", "\tport: 8080", r"calque.yaml:10:1: file: not YAML.*spaces"),
    ],
)
def test_a_fault_names_file_line_column_field_and_remedy(base: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    found = faults(GOOD.replace(old, new), base)
    assert any(re.match(said, line) for line in found), found
    assert len(found) == 1 or "prot" in new, found


def test_all_faults_come_at_once_in_the_order_of_the_file(base: Path) -> None:
    text = GOOD.replace("type: public", "type: web").replace("ideas.uri", "idea.uri").replace("8080", "0")
    text = text.replace("{type: database}", "{type: db, size: 3}").replace("version: 1.10", "version: 1 0")
    assert [line.split(": ")[1] for line in faults(text, base)] == [
        "version",
        "services.web.type",
        "services.web.port",
        "services.web.environment.IDEAS_URI",
        "data_services.ideas.type",
        "data_services.ideas.size",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no mapping"),
        (b"- a\n", "holds no mapping"),
        (b"a: 1\n---\nb: 2\n", "not YAML"),
        (b"name: x\nversion: \xff\n", "calque.yaml:2:10: file: it is not UTF-8"),
        (b"name: x\nversion: \x01\n", "calque.yaml:2:10: file: not YAML"),
        (b"a: &a [*a]\n", "refers to itself"),
        (b"? [a]\n: 1\n", "a key must be plain text"),
        (b"[" * 5000, "nested too deeply"),
        (b"a: &a [" + b"x," * 300 + b"]\nb: &b [" + b"*a," * 300 + b"]\n", "more than"),
        (b"#" * 2_000_000, "larger than"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_what_is_no_template_is_refused(base: Path, content: bytes, said: str) -> None:
    assert said in "\n".join(faults(content, base))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CalqueError) as caught:
        load_template(tmp_path / "none.yaml")
    assert caught.value.problem.code == "not_found"
    assert "none.yaml" in str(caught.value)


def test_the_published_schema_is_that_of_the_model() -> None:
    published = (ROOT / "docs" / "template.schema.json").read_text()
    assert published == template_schema(), "run: python -m hub.manifest.reference docs/template.schema.json"


def test_the_digest_of_an_artifact_follows_content_and_nothing_else(base: Path) -> None:
    first = tree_digest(base / "app")
    (base / "app" / "__pycache__").mkdir()
    (base / "app" / "__pycache__" / "x.pyc").write_bytes(b"1")
    (base / "app" / "y.pyc").write_bytes(b"1")
    (base / "app" / "main.py").touch()
    assert tree_digest(base / "app") == first
    (base / "app" / "main.py").chmod(0o755)
    assert tree_digest(base / "app") != first
    (base / "app" / "main.py").chmod(0o644)
    assert tree_digest(base / "app") == first
    (base / "app" / "main.py").write_text("print(1)\n")
    assert tree_digest(base / "app") != first
