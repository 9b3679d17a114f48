"""Whatever a user can meet stands in the documents: commands, options, messages, codes, settings, variables."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from hub.cli import pages
from hub.cli.doctor import doctor
from hub.cli.exits import MEANINGS, Exit
from hub.cli.findings import CHECKS
from hub.cli.main import cli
from hub.cli.problem_codes import BROKER, CALLER, ENVIRONMENT
from schemas.registry import MESSAGES
from tests.unit.cli.used_codes import used_codes

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
ROOMS = ("hub", "site_agent", "brokers", "bus", "schemas")


def test_the_pages_are_what_the_program_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["--check"]) == 0, capsys.readouterr().err
    assert pages.main([str(tmp_path)]) == 0
    assert pages.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "errors.md").write_text("something else")
    assert pages.main(["--check", str(tmp_path)]) == 1
    assert "errors.md" in capsys.readouterr().err


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def test_every_command_and_option_is_documented_and_says_what_it_does() -> None:
    page = (DOCS / "cli.md").read_text()
    for path, command in _commands(cli, "calque"):
        section = re.search(rf"^## {re.escape(path)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
        assert section, path
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (path, parameter.name)
                assert all(option in section[1] for option in parameter.opts), (path, parameter.name)


def test_every_message_type_is_documented_with_its_meaning() -> None:
    page = (DOCS / "messages.md").read_text()
    rows = {row.split("|")[1].strip(" `"): row for row in page.splitlines() if row.startswith("| `calque.")}
    assert set(rows) == set(MESSAGES)
    assert [name for name, row in rows.items() if not row.rstrip(" |").rpartition("|")[2].strip()] == []
    for name, row in rows.items():
        if name.startswith(("calque.command.", "calque.event.", "calque.query.", "calque.request.")):
            assert row.split("|")[2].strip().startswith("`calque."), name


def test_every_code_of_a_problem_is_documented_and_none_that_is_gone() -> None:
    used = used_codes()
    known = {**CALLER, **ENVIRONMENT, **BROKER}
    assert len(known) == len(CALLER) + len(ENVIRONMENT) + len(BROKER)
    new = {code: sorted(places) for code, places in used.items() if code not in known}
    assert not new, f"say in hub/cli/problem_codes.py what these mean, then 'make generate': {new}"
    assert not known.keys() - used.keys(), "no part makes these any more"


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)


def test_every_check_of_the_doctor_is_explained() -> None:
    assert doctor.epilog is not None
    assert [name for name in CHECKS if name not in doctor.epilog] == []


def _settings() -> Iterator[tuple[str, type[BaseModel]]]:
    for room in ("bus", "hub", "site_agent", "brokers"):
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if module.name.rpartition(".")[2] == "settings" and "stack" not in module.name:
                for kind in vars(importlib.import_module(module.name)).values():
                    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not BaseModel:
                        yield module.name, kind


def test_every_setting_is_documented() -> None:
    page = (DOCS / "settings.md").read_text()
    found = {(module, field) for module, kind in _settings() for field in kind.model_fields}
    assert found
    missing = sorted((module, field) for module, field in found if f"`{field}`" not in page)
    assert missing == []


def test_every_environment_variable_is_documented() -> None:
    said = (DOCS / "cli.md").read_text() + (DOCS / "settings.md").read_text()
    named = {
        name
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        for name in re.findall(r"\"(CALQUE_[A-Z_]+|NO_COLOR|XDG_[A-Z_]+)\"", file.read_text())
    }
    assert named
    assert sorted(name for name in named if f"`{name}`" not in said) == []
