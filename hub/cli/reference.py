"""``docs/cli.md``, made from the commands themselves: ``python -m hub.cli.reference [FILE]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from hub.cli.exits import MEANINGS
from hub.cli.main import cli

_HEAD = """\
# The command line

Made from the program by `python -m hub.cli.reference docs/cli.md`; a test holds it to that.

Results go to stdout, talk and progress to stderr. `-o json` prints one JSON document with every field; an empty
list is `[]`; `events` prints one document per line. Progress is drawn in place on a terminal and told in plain
lines elsewhere. `NO_COLOR` is obeyed. Verbs wait until their operation has ended; Ctrl-C leaves it running and
says how to come back. Durations are written `90`, `90s`, `2m` or `1h30m`.

The home is `--home`, else `CALQUE_HOME`, else `$XDG_DATA_HOME/calque`, else `~/.local/share/calque`.

| exit code | meaning |
| --- | --- |
"""


def reference() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return _HEAD + codes + "".join(_sections(cli, "calque"))


def _sections(group: click.Group, path: str, parent: click.Context | None = None) -> Iterator[str]:
    # Settings such as the names of the help option come down from the parent.
    context = click.Context(group, info_name=path, parent=parent, **group.context_settings)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            continue
        yield _section(command, f"{path} {name}", context)
        if isinstance(command, click.Group):
            yield from _sections(command, f"{path} {name}", context)


def _section(command: click.Command, path: str, parent: click.Context) -> str:
    context = click.Context(command, info_name=path, parent=parent)
    lines = [f"\n## {path}\n"]
    if command.help:
        lines.append("\n" + "\n".join(line.strip() for line in command.help.strip().splitlines()) + "\n")
    if isinstance(command, click.Group):
        return "".join(lines)
    pieces = " ".join(command.collect_usage_pieces(context))
    lines.append(f"\n```\n{path} {pieces}\n```\n")
    rows = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    if rows:
        lines.append("\n| option | meaning |\n| --- | --- |\n")
        lines += [f"| `{_cell(option)}` | {_cell(text)} |\n" for option, text in rows]
    return "".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(reference())
    else:
        sys.stdout.write(reference())
