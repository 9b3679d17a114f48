"""The commands of the how-to pages are commands of the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from hub.cli.main import cli

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"
COMMAND = re.compile(r"^\$ calque (.+)$", re.MULTILINE)


def commands(page: str) -> list[str]:
    return COMMAND.findall((HOW_TO / page).read_text())


def test_the_page_about_repositories_shows_all_verbs_of_repositories() -> None:
    shown = {line.split()[1] for line in commands("repositories.md") if line.startswith("repository ")}
    group = cli.commands["repository"]
    assert isinstance(group, click.Group)
    assert shown == set(group.commands)


@pytest.mark.parametrize("line", commands("repositories.md"))
def test_a_command_of_the_page_is_one_of_the_program(line: str) -> None:
    arguments = shlex.split(line)
    group: click.Command = cli
    context = click.Context(cli, info_name="calque", **cli.context_settings)
    while isinstance(group, click.Group):
        name = arguments.pop(0)
        found = group.get_command(context, name)
        assert found is not None, f"there is no {name} in: calque {line}"
        group = found
    group.make_context(line, arguments, parent=context)
